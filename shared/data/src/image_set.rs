//! The image set: labelled images of 32 by 32 pixels in one file, which is also the blob that goes to the twin.
//!
//! | bytes | content (little endian) |
//! | --- | --- |
//! | 8 | `TWINSET` and a zero |
//! | 2 | version, 1 |
//! | 2 | classes |
//! | 1, 1, 2 | channels (3), side (32), zero |
//! | 4 | samples |
//! | 12, 12 | mean and standard deviation a channel, f32, of pixels scaled to 0..1 |
//! | 3,074 each | label (u16), then red, green and blue plane (u8, row by row) |

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::normalisation::{Normalisation, PixelStatistics};

/// Pixels on a side.
pub const SIDE: usize = 32;
/// Bytes of an image: three planes.
pub const IMAGE_BYTES: usize = 3 * SIDE * SIDE;
/// Most bytes that a file may have; a board's data is far smaller.
pub const MAX_BYTES: u64 = 1 << 32;

const MAGIC: &[u8; 8] = b"TWINSET\0";
pub(crate) const VERSION: u16 = 1;
const HEADER_BYTES: usize = 44;
const RECORD_BYTES: usize = 2 + IMAGE_BYTES;

/// An image: red, green and blue plane, `[3, 32, 32]`.
pub type Image = [u8; IMAGE_BYTES];

/// The first 16 bytes of the BLAKE3 hash of an image's bytes; its label plays no part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SampleHash(pub [u8; 16]);

impl SampleHash {
    /// Of an image.
    #[must_use]
    pub fn of(image: &Image) -> Self {
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(image).as_bytes()[..16]);
        Self(hash)
    }

    /// Whether the sample belongs to the tenth that no training ever uses. A pure function of the image, so board
    /// and twin, and every version of a dataset, agree, and a label corrected later moves nothing.
    #[must_use]
    pub fn is_held_out(self) -> bool {
        self.draw() < u32::MAX / 10
    }

    /// Whether the sample belongs to a part; training, validation and test part an image for ever. The held-out
    /// tenth is the validation part and the test part, half each.
    #[must_use]
    pub fn belongs(self, part: Part) -> bool {
        match part {
            Part::All => true,
            Part::Train => !self.is_held_out(),
            Part::Held => self.is_held_out(),
            Part::Validation => self.is_held_out() && self.draw().is_multiple_of(2),
            Part::Test => self.is_held_out() && !self.draw().is_multiple_of(2),
        }
    }

    fn draw(self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_le_bytes([a, b, c, d])
    }

    /// Reads 32 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 16];
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }
}

/// 32 hexadecimal digits.
impl std::fmt::Display for SampleHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for SampleHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

pub use twin_shared::pipe::Part;

/// Labelled images of 32 by 32 pixels with the normalisation that networks use on them.
#[derive(Clone, PartialEq)]
pub struct ImageSet {
    classes: u16,
    normalisation: Normalisation,
    labels: Vec<u16>,
    pixels: Vec<u8>,
}

impl std::fmt::Debug for ImageSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ImageSet({} samples of {} classes)", self.len(), self.classes)
    }
}

impl ImageSet {
    /// A set without samples yet.
    ///
    /// # Errors
    /// When the normalisation is unusable.
    pub fn new(classes: u16, normalisation: Normalisation) -> Result<Self, DataError> {
        Ok(Self { classes, normalisation: normalisation.checked()?, labels: Vec::new(), pixels: Vec::new() })
    }

    /// Adds a sample.
    ///
    /// # Errors
    /// When the label is not below the number of classes.
    pub fn push(&mut self, label: u16, image: &Image) -> Result<(), DataError> {
        if label >= self.classes {
            return Err(DataError::LabelOutOfRange {
                index: self.len(),
                label: label.into(),
                classes: self.classes.into(),
            });
        }
        self.labels.push(label);
        self.pixels.extend_from_slice(image);
        Ok(())
    }

    /// Number of classes, whether or not each has samples here.
    #[must_use]
    pub const fn classes(&self) -> u16 {
        self.classes
    }

    /// How images are normalised.
    #[must_use]
    pub const fn normalisation(&self) -> Normalisation {
        self.normalisation
    }

    /// The same samples under another normalisation.
    ///
    /// # Errors
    /// When it is unusable.
    pub fn with_normalisation(mut self, normalisation: Normalisation) -> Result<Self, DataError> {
        self.normalisation = normalisation.checked()?;
        Ok(self)
    }

    /// Number of samples.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The label of a sample. Panics beyond [`Self::len`].
    #[must_use]
    pub fn label(&self, index: usize) -> u16 {
        self.labels[index]
    }

    /// A sample's image. Panics beyond [`Self::len`].
    #[must_use]
    pub fn image(&self, index: usize) -> &Image {
        let start = index * IMAGE_BYTES;
        (&self.pixels[start..start + IMAGE_BYTES]).try_into().expect("an image's length")
    }

    /// A sample's identity by its content.
    #[must_use]
    pub fn hash(&self, index: usize) -> SampleHash {
        SampleHash::of(self.image(index))
    }

    /// Indices of the samples of a part, ascending.
    #[must_use]
    pub fn indices(&self, part: Part) -> Vec<u32> {
        let count = u32::try_from(self.len()).expect("the file's length bounds the samples");
        (0..count).filter(|&index| part == Part::All || self.hash(index as usize).belongs(part)).collect()
    }

    /// Samples a class.
    #[must_use]
    pub fn label_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; usize::from(self.classes)];
        for &label in &self.labels {
            counts[usize::from(label)] += 1;
        }
        counts
    }

    /// Nothing, if every class has samples.
    ///
    /// # Errors
    /// Names the first class without.
    pub fn require_every_class(&self) -> Result<(), DataError> {
        match self.label_counts().iter().position(|&count| count == 0) {
            None => Ok(()),
            Some(class) => {
                Err(DataError::EmptyClass { class: u16::try_from(class).expect("below the number of classes") })
            }
        }
    }

    /// Count, sum and square sum of all pixels.
    #[must_use]
    pub fn pixel_statistics(&self) -> PixelStatistics {
        let mut total = PixelStatistics::default();
        let plane = SIDE * SIDE;
        for planes in self.pixels.chunks_exact(IMAGE_BYTES) {
            for (channel, bytes) in planes.chunks_exact(plane).enumerate() {
                total.sum[channel] += bytes.iter().map(|&b| u64::from(b)).sum::<u64>();
                total.square_sum[channel] += bytes.iter().map(|&b| u64::from(b) * u64::from(b)).sum::<u64>();
            }
            total.count += plane as u64;
        }
        total
    }

    /// The samples of these indices, in their order. Panics on an index beyond [`Self::len`].
    #[must_use]
    pub fn select(&self, indices: &[u32]) -> Self {
        let mut pixels = Vec::with_capacity(indices.len() * IMAGE_BYTES);
        for &index in indices {
            pixels.extend_from_slice(self.image(index as usize));
        }
        Self {
            classes: self.classes,
            normalisation: self.normalisation,
            labels: indices.iter().map(|&index| self.labels[index as usize]).collect(),
            pixels,
        }
    }

    /// The samples of classes `from..to`, renumbered from 0.
    ///
    /// # Errors
    /// When the range is empty or reaches beyond the classes there are, or one of its classes has no samples.
    pub fn class_range(&self, from: u16, to: u16) -> Result<Self, DataError> {
        if from >= to || to > self.classes {
            return Err(DataError::Split(format!("classes {from}..{to} are no range within 0..{}", self.classes)));
        }
        let mut part = Self::new(to - from, self.normalisation)?;
        for index in 0..self.len() {
            let label = self.labels[index];
            if (from..to).contains(&label) {
                part.push(label - from, self.image(index))?;
            }
        }
        part.require_every_class()?;
        Ok(part)
    }

    /// The file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.len() * RECORD_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.classes.to_le_bytes());
        bytes.extend_from_slice(&[3, SIDE as u8, 0, 0]);
        let count = u32::try_from(self.len()).expect("fewer than 2^32 samples");
        bytes.extend_from_slice(&count.to_le_bytes());
        for number in self.normalisation.mean.iter().chain(&self.normalisation.deviation) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for index in 0..self.len() {
            bytes.extend_from_slice(&self.labels[index].to_le_bytes());
            bytes.extend_from_slice(self.image(index));
        }
        bytes
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// When they are no such file, cut short or too long, without samples, or a label is out of range.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DataError> {
        let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(DataError::Foreign("shorter than its header"));
        };
        if &header[..8] != MAGIC {
            return Err(DataError::Foreign("it begins otherwise"));
        }
        let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if u16_at(8) != VERSION {
            return Err(DataError::Foreign("another version"));
        }
        if header[12..16] != [3, SIDE as u8, 0, 0] {
            return Err(DataError::Foreign("images are not of 3 channels and 32 by 32 pixels"));
        }
        let (classes, count) = (u16_at(10), u32_at(16));
        let expected = HEADER_BYTES as u64 + u64::from(count) * RECORD_BYTES as u64;
        if bytes.len() as u64 != expected {
            return Err(DataError::Length { what: "the image set".into(), expected, actual: bytes.len() as u64 });
        }
        if count == 0 {
            return Err(DataError::Empty("the image set".into()));
        }
        let number = |i: usize| f32::from_bits(u32_at(20 + 4 * i));
        let normalisation =
            Normalisation { mean: [number(0), number(1), number(2)], deviation: [number(3), number(4), number(5)] };
        let mut set = Self::new(classes, normalisation)?;
        set.labels.reserve_exact(count as usize);
        set.pixels.reserve_exact(count as usize * IMAGE_BYTES);
        for record in body.chunks_exact(RECORD_BYTES) {
            let (label, image) = record.split_at(2);
            let image: &Image = image.try_into().expect("a record holds an image");
            set.push(u16::from_le_bytes([label[0], label[1]]), image)?;
        }
        Ok(set)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// As [`Self::from_bytes`], and when the file cannot be read or is over [`MAX_BYTES`].
    pub fn read(path: &Path) -> Result<Self, DataError> {
        Self::from_bytes(&read_bounded(path)?)
    }

    /// Writes a file beside the name and then gives it the name, so that a half-written one is never seen.
    ///
    /// # Errors
    /// When it cannot be written; what was there before is left as it was.
    pub fn write(&self, path: &Path) -> Result<(), DataError> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let result = fs::File::create(&partial)
            .and_then(|mut file| {
                file.write_all(&self.to_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&partial, path));
        if result.is_err() {
            // Best effort: the error that matters is the first one.
            let _ = fs::remove_file(&partial);
        }
        result.map_err(DataError::io(path))
    }
}

/// The bytes of a file of at most [`MAX_BYTES`].
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>, DataError> {
    let bytes = fs::metadata(path).map_err(DataError::io(path))?.len();
    if bytes > MAX_BYTES {
        return Err(DataError::TooLarge { what: path.display().to_string(), bytes });
    }
    fs::read(path).map_err(DataError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNIT: Normalisation = Normalisation { mean: [0.5; 3], deviation: [0.25; 3] };

    fn sample_set(count: usize) -> ImageSet {
        let mut set = ImageSet::new(7, UNIT).unwrap();
        for index in 0..count {
            let image: Image = std::array::from_fn(|i| (i * 31 + index * 17) as u8);
            set.push((index % 7) as u16, &image).unwrap();
        }
        set
    }

    #[test]
    fn a_file_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.twin");
        sample_set(9).write(&path).unwrap();
        assert_eq!(ImageSet::read(&path).unwrap(), sample_set(9));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(sample_set(1).write(&dir.path().join("no/such/place")).is_err());
    }

    #[test]
    fn the_bytes_of_version_1_are_pinned() {
        let hash = blake3::hash(&sample_set(3).to_bytes());
        assert_eq!(hash.to_hex().as_str(), GOLDEN);
    }
    const GOLDEN: &str = "f87e7259e58f0f96c2ecdc55552694d999c7c228b7f2f043a75c4bea059723ac";

    #[test]
    fn bad_files_are_refused_by_what_is_wrong() {
        let good = sample_set(4).to_bytes();
        assert!(matches!(ImageSet::from_bytes(&good[..40]), Err(DataError::Foreign(_))));
        assert!(matches!(ImageSet::from_bytes(&good[..good.len() - 1]), Err(DataError::Length { .. })));
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            ImageSet::from_bytes(&bytes).unwrap_err()
        };
        assert!(matches!(with(0, b'X'), DataError::Foreign(_)));
        assert!(matches!(with(8, 2), DataError::Foreign(_)));
        assert!(matches!(with(13, 16), DataError::Foreign(_)));
        assert!(matches!(with(19, 0xff), DataError::Length { .. }));
        assert!(matches!(with(35, 0xbe), DataError::Normalisation { channel: 0, .. }));
        assert!(matches!(
            with(HEADER_BYTES + RECORD_BYTES, 7),
            DataError::LabelOutOfRange { index: 1, label: 7, classes: 7 }
        ));
        let empty = ImageSet::new(2, UNIT).unwrap().to_bytes();
        assert!(matches!(ImageSet::from_bytes(&empty), Err(DataError::Empty(_))));
    }

    #[test]
    fn about_a_tenth_is_held_out_and_both_parts_make_the_whole() {
        let set = sample_set(600);
        let (train, held) = (set.indices(Part::Train), set.indices(Part::Held));
        // Images of this size repeat every 256; of 256 distinct ones 10 to 45 is beyond three standard deviations.
        assert!((20..=110).contains(&held.len()), "{}", held.len());
        let mut both = [train, held].concat();
        both.sort_unstable();
        assert_eq!(both, set.indices(Part::All));
    }

    #[test]
    fn a_range_of_classes_is_renumbered() {
        let part = sample_set(20).class_range(2, 5).unwrap();
        assert_eq!((part.classes(), part.label_counts()), (3, vec![3, 3, 3]));
        assert!(sample_set(20).class_range(5, 8).is_err());
        assert!(matches!(sample_set(3).class_range(1, 5), Err(DataError::EmptyClass { class: 2 })));
    }

    #[test]
    fn pooled_statistics_are_those_of_the_whole() {
        let set = sample_set(10);
        let (a, b) = (set.select(&[0, 3, 4]), set.select(&[1, 2, 5, 6, 7, 8, 9]));
        let pooled = a.pixel_statistics().pooled(b.pixel_statistics());
        assert_eq!(pooled, set.pixel_statistics());
        let normalisation = pooled.normalisation();
        assert!((normalisation.mean[0] - 0.5).abs() < 0.02);
        assert!((normalisation.deviation[1] - 0.29).abs() < 0.02);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), keep in 0usize..60) {
            let mut file = sample_set(1).to_bytes();
            file.truncate(keep);
            file.extend_from_slice(&bytes);
            let _ = ImageSet::from_bytes(&file);
        }
    }
}
