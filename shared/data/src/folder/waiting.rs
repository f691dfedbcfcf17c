//! The pictures of a folder that wait for a label.

use std::collections::BTreeSet;
use std::fs;
use std::time::SystemTime;

use super::{Folder, FolderError, decode};
use crate::classes::{ClassList, INCOMING};
use crate::image_set::{Image, SampleHash};
use crate::waiting::{Labels, MOST};

impl Folder {
    /// When pictures last came to wait, were written or went, as far as the file system tells; `None` where none ever
    /// waited.
    #[must_use]
    pub fn waiting_since(&self) -> Option<SystemTime> {
        let written = |path| fs::metadata(path).and_then(|data| data.modified()).ok();
        let files = self.waiting().unwrap_or_default();
        let files = files.iter().filter_map(|file| written(self.path(INCOMING, file)));
        files.chain(written(self.incoming())).max()
    }

    /// The first of the pictures that wait, each once, as images. What cannot be decoded waits on unseen.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn waiting_images(&self) -> Result<Vec<Image>, FolderError> {
        let mut seen = BTreeSet::new();
        let files = self.waiting()?.into_iter();
        let images = files.filter_map(|file| decode(&self.path(INCOMING, &file)).ok()).map(|image| *image);
        Ok(images.filter(|image| seen.insert(SampleHash::of(image))).take(MOST).collect())
    }

    /// Gives those that wait the labels that there are for them, and brings the manifest up to date; how many got one.
    ///
    /// # Errors
    /// When a label is not in the list of classes, where there is one, or the disk refuses: nothing more is moved then.
    pub fn label_waiting(&self, labels: &Labels, classes: Option<&ClassList>) -> Result<usize, FolderError> {
        for class in labels.0.values() {
            let known = classes.map_or_else(|| crate::classes::check_name(class), |list| list.index(class).map(drop));
            known.map_err(|error| FolderError::Class { path: self.incoming(), error })?;
        }
        let mut labelled = 0;
        for file in self.waiting()? {
            let Ok(image) = decode(&self.path(INCOMING, &file)) else { continue };
            if let Some(class) = labels.0.get(&SampleHash::of(&image)) {
                self.label(&file, class)?;
                labelled += 1;
            }
        }
        if labelled > 0 {
            self.update()?;
        }
        Ok(labelled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image_set::IMAGE_BYTES;
    use crate::picture::to_png;

    #[test]
    fn labels_that_come_move_the_pictures_that_they_are_for() {
        let directory = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(directory.path());
        assert_eq!(folder.waiting_since(), None);
        fs::create_dir(folder.incoming()).expect("made");
        for (name, grey) in [("a.png", 1), ("again.png", 1), ("b.png", 2)] {
            let png = to_png(&[grey; IMAGE_BYTES]).expect("a picture");
            fs::write(folder.incoming().join(name), png).expect("written");
        }
        fs::write(folder.incoming().join("c.jpg"), "no picture").expect("written");
        assert!(folder.waiting_since().is_some());
        let images = folder.waiting_images().expect("read");
        assert_eq!(images.iter().map(|image| image[0]).collect::<Vec<_>>(), [1, 2]);
        let label = |image: &Image, class: &str| Labels([(SampleHash::of(image), class.to_owned())].into());
        let classes = ClassList::new(1, vec!["cat".into()]).expect("names");
        let said = folder.label_waiting(&label(&images[0], "zebra"), Some(&classes)).expect_err("unknown").to_string();
        assert!(said.contains("zebra"), "{said}");
        assert_eq!(folder.waiting().expect("listed").len(), 4);
        let labels = label(&images[0], "cat");
        assert_eq!(folder.label_waiting(&labels, Some(&classes)).expect("labelled"), 2);
        assert_eq!(folder.label_waiting(&labels, Some(&classes)).expect("again"), 0);
        assert_eq!(folder.waiting().expect("listed"), ["b.png", "c.jpg"]);
        assert_eq!(folder.manifest().expect("read").expect("there").pictures.len(), 1);
    }
}
