//! Pictures that a board's owner lets the host see and label, and the labels that they have got here.

use rusqlite::{OptionalExtension, params};
use twin_data::waiting::{self, Labels};
use twin_data::{Image, SampleHash};
use twin_shared::id::{BlobHash, DeviceId};

use super::{Store, StoreError};

impl Store {
    /// Takes what a board shows in place of what it showed before: of that nothing stays, nor of labels for pictures that
    /// wait no more. What cannot be read shows nothing.
    ///
    /// # Errors
    /// When database or disk refuse.
    pub fn hold_waiting(&self, device: &DeviceId, blob: &BlobHash) -> Result<(), StoreError> {
        let (former, blobs) = (self.waiting_blob(device)?, self.blobs(device)?);
        // Told of twice, and gone since the first time.
        if !blobs.contains(blob) {
            return Ok(());
        }
        let shown = self.pictures(device, blob)?;
        if shown.is_empty() {
            self.asked(self.records.execute("DELETE FROM waiting WHERE device = ?1", [device.as_str()]))?;
        } else {
            let sql = "INSERT INTO waiting (device, blob) VALUES (?1, ?2)
                       ON CONFLICT (device) DO UPDATE SET blob = excluded.blob";
            self.asked(self.records.execute(sql, params![device.as_str(), blob.0]))?;
        }
        let waits: Vec<SampleHash> = shown.iter().map(SampleHash::of).collect();
        for sample in self.waiting_labels(device)?.0.into_keys().filter(|sample| !waits.contains(sample)) {
            let sql = "DELETE FROM waiting_label WHERE device = ?1 AND sample = ?2";
            self.asked(self.records.execute(sql, params![device.as_str(), sample.0]))?;
        }
        // While a copy of the data directory is made, all stays; what nothing names goes later then.
        let Some(_turn) = self.turn_to_collect()? else { return Ok(()) };
        for gone in former.into_iter().filter(|former| former != blob).chain(shown.is_empty().then_some(*blob)) {
            blobs.remove(&gone)?;
        }
        Ok(())
    }

    /// The pictures of a device that wait; none where its owner shows none.
    ///
    /// # Errors
    /// When it is unknown, or database or disk refuse.
    pub fn waiting(&self, device: &DeviceId) -> Result<Vec<Image>, StoreError> {
        self.device(device)?;
        self.waiting_blob(device)?.map_or_else(|| Ok(Vec::new()), |blob| self.pictures(device, &blob))
    }

    /// Gives a picture that waits its label; a later one takes the place of an earlier one.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn label_waiting(&self, device: &DeviceId, sample: SampleHash, class: &str) -> Result<(), StoreError> {
        let sql = "INSERT INTO waiting_label (device, sample, class) VALUES (?1, ?2, ?3)
                   ON CONFLICT (device, sample) DO UPDATE SET class = excluded.class";
        self.asked(self.records.execute(sql, params![device.as_str(), sample.0, class])).map(drop)
    }

    /// The labels that the board has not made its own yet.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn waiting_labels(&self, device: &DeviceId) -> Result<Labels, StoreError> {
        let sql = "SELECT sample, class FROM waiting_label WHERE device = ?1";
        let mut statement = self.asked(self.records.prepare(sql))?;
        let rows = statement.query_map([device.as_str()], |row| Ok((SampleHash(row.get(0)?), row.get(1)?)));
        let labels = self.asked(rows)?.map(|row| self.asked(row)).collect::<Result<_, _>>()?;
        Ok(Labels(labels))
    }

    pub(super) fn waiting_blob(&self, device: &DeviceId) -> Result<Option<BlobHash>, StoreError> {
        let sql = "SELECT blob FROM waiting WHERE device = ?1";
        let row = self.records.query_row(sql, [device.as_str()], |row| row.get(0).map(BlobHash));
        self.asked(row.optional())
    }

    fn pictures(&self, device: &DeviceId, blob: &BlobHash) -> Result<Vec<Image>, StoreError> {
        let path = self.blobs(device)?.path(blob);
        let bytes = std::fs::read(&path).map_err(|error| StoreError::Files { path, error })?;
        Ok(waiting::from_bytes(&bytes).unwrap_or_else(|error| {
            tracing::warn!(%device, %error, "what the board shows cannot be read");
            Vec::new()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twin_data::IMAGE_BYTES;
    use twin_shared::wire::seal::DeviceKey;

    #[test]
    fn what_is_shown_no_more_is_gone_and_so_are_its_labels() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let device: DeviceId = "board1".parse().unwrap();
        assert!(matches!(store.waiting(&device), Err(StoreError::UnknownDevice(..))));
        store.enroll(&device, &DeviceKey::new([1; 32])).unwrap();
        assert!(store.waiting(&device).unwrap().is_empty());
        let blobs = store.blobs(&device).unwrap();
        let images: Vec<Image> = (0..3).map(|grey| [grey; IMAGE_BYTES]).collect();
        let samples: Vec<SampleHash> = images.iter().map(SampleHash::of).collect();
        let show = |images: &[Image]| {
            let blob = blobs.put(&waiting::to_bytes(images)).unwrap();
            store.hold_waiting(&device, &blob).unwrap();
            blob
        };
        let first = show(&images[..2]);
        assert_eq!(show(&images[..2]), first, "again");
        store.label_waiting(&device, samples[0], "cat").unwrap();
        store.label_waiting(&device, samples[1], "cat").unwrap();
        store.label_waiting(&device, samples[1], "dog").unwrap();
        let second = show(&images[1..]);
        assert_eq!(store.waiting(&device).unwrap(), images[1..]);
        assert_eq!(store.waiting_labels(&device).unwrap().0, [(samples[1], "dog".to_owned())].into());
        assert!(!blobs.contains(&first) && blobs.contains(&second));
        // The owner shows nothing any more.
        let none = show(&[]);
        assert!(store.waiting(&device).unwrap().is_empty() && store.waiting_labels(&device).unwrap().0.is_empty());
        assert!(!blobs.contains(&second) && !blobs.contains(&none));
        let third = show(&images[..1]);
        store.hold_waiting(&device, &second).unwrap();
        assert!(store.waiting(&device).unwrap().len() == 1 && blobs.contains(&third), "a late word of what is gone");
        let noise = blobs.put(b"noise").unwrap();
        store.hold_waiting(&device, &noise).unwrap();
        assert!(store.waiting(&device).unwrap().is_empty() && !blobs.contains(&noise));
    }
}
