//! The 1,797 handwritten digits: a gzipped text of 64 pixels (0 to 16) and a label a line, enlarged to 32 by 32.

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use crate::draw::Draw;
use crate::error::DataError;
use crate::image_set::{IMAGE_BYTES, Image, ImageSet, SIDE, read_bounded};
use crate::normalisation::Normalisation;

/// Most bytes of the unpacked text: a thousand times a small file is not what digits need.
const MAX_TEXT: u64 = 64 << 20;

/// Reads `digits.csv.gz`.
///
/// # Errors
/// When the file cannot be read or unpacked, or a line is not 64 pixels of 0 to 16 and a label of 0 to 9.
pub fn read(path: &Path) -> Result<ImageSet, DataError> {
    let packed = read_bounded(path)?;
    let mut text = String::new();
    GzDecoder::new(packed.as_slice()).take(MAX_TEXT).read_to_string(&mut text).map_err(DataError::io(path))?;
    parse(&text)
}

/// Reads the unpacked text.
///
/// # Errors
/// When a line is not 64 pixels of 0 to 16 and a label of 0 to 9, or a digit does not occur.
pub fn parse(text: &str) -> Result<ImageSet, DataError> {
    let unit = Normalisation { mean: [0.0; 3], deviation: [1.0; 3] };
    let mut set = ImageSet::new(10, unit)?;
    for (number, line) in text.lines().enumerate() {
        let fail = |problem: String| DataError::Line { what: "digits", line: number + 1, problem };
        let mut values = [0u8; 65];
        let mut count = 0;
        for field in line.split(',') {
            let value = field.trim().parse().map_err(|_| fail(format!("`{field}` is no pixel or label")))?;
            *values.get_mut(count).ok_or_else(|| fail("more than 65 numbers".into()))? = value;
            count += 1;
        }
        if count != 65 {
            return Err(fail(format!("{count} numbers instead of 65")));
        }
        let (pixels, label) = values.split_at(64);
        if let Some(pixel) = pixels.iter().find(|&&pixel| pixel > 16) {
            return Err(fail(format!("pixel {pixel} is over 16")));
        }
        let pixels: &[u8; 64] = pixels.try_into().expect("64 of 65");
        set.push(label[0].into(), &enlarge(pixels))?;
    }
    set.require_every_class()?;
    let normalisation = set.pixel_statistics().normalisation();
    set.with_normalisation(normalisation)
}

/// Enlarges 8 by 8 pixels of 0..=16 four times, by bilinear interpolation between pixel centres (edges repeated), to
/// bytes of 0..=255, the same in all three planes. All in integers: weights are eighths.
fn enlarge(pixels: &[u8; 64]) -> Box<Image> {
    // The centre of target pixel t lies at (2 t - 3) / 8 source pixels.
    let source = |t: usize| {
        let eighths = 2 * t as i32 - 3;
        let low = eighths.div_euclid(8);
        (low.clamp(0, 7) as usize, (low + 1).clamp(0, 7) as usize, eighths.rem_euclid(8) as u32)
    };
    let mut image = Box::new([0; IMAGE_BYTES]);
    for y in 0..SIDE {
        let (top, bottom, down) = source(y);
        for x in 0..SIDE {
            let (left, right, across) = source(x);
            let at = |row: usize, column: usize| u32::from(pixels[row * 8 + column]);
            let upper = at(top, left) * (8 - across) + at(top, right) * across;
            let lower = at(bottom, left) * (8 - across) + at(bottom, right) * across;
            // 64 weights, 16 grey levels: white is 1024.
            let value = ((upper * (8 - down) + lower * down) * 255 + 512) / 1024;
            for plane in 0..3 {
                image[plane * SIDE * SIDE + y * SIDE + x] = u8::try_from(value).expect("at most 255");
            }
        }
    }
    image
}

/// A split of one set between boards and a test set.
#[derive(Debug)]
pub struct BoardSplit {
    /// A set a board.
    pub boards: Vec<ImageSet>,
    /// Whatever no board got.
    pub test: ImageSet,
}

/// Draws `per_class` samples of each of its classes for every board, no sample twice; the rest is the test set. All
/// sets carry the normalisation of the boards' samples pooled.
///
/// # Errors
/// When a board's class does not exist, a class has too few samples for all boards that hold it, or a class is left
/// without test samples.
pub fn split(all: &ImageSet, boards: &[Vec<u16>], per_class: usize, seed: u64) -> Result<BoardSplit, DataError> {
    let mut pools: Vec<Vec<u32>> = vec![Vec::new(); all.classes().into()];
    for index in 0..all.len() {
        pools[usize::from(all.label(index))].push(u32::try_from(index).expect("fewer than 2^32 samples"));
    }
    let draw = Draw::new("twinstill board split v1", &[seed]);
    for (class, pool) in pools.iter_mut().enumerate() {
        draw.stream(class as u64).shuffle(pool);
    }
    let mut chosen = Vec::new();
    for classes in boards {
        let mut indices = Vec::new();
        for &class in classes {
            let pool = pools
                .get_mut(usize::from(class))
                .ok_or_else(|| DataError::Split(format!("class {class} is not one of {}", all.classes())))?;
            if pool.len() <= per_class {
                return Err(DataError::Split(format!(
                    "class {class} has too few samples for {per_class} a board and some to test"
                )));
            }
            indices.extend(pool.drain(..per_class));
        }
        indices.sort_unstable();
        chosen.push(all.select(&indices));
    }
    let mut rest: Vec<u32> = pools.into_iter().flatten().collect();
    rest.sort_unstable();
    let statistics = chosen
        .iter()
        .map(ImageSet::pixel_statistics)
        .fold(crate::PixelStatistics::default(), crate::PixelStatistics::pooled);
    let normalisation = statistics.normalisation();
    Ok(BoardSplit {
        boards: chosen.into_iter().map(|set| set.with_normalisation(normalisation)).collect::<Result<_, _>>()?,
        test: all.select(&rest).with_normalisation(normalisation)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits() -> ImageSet {
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/digits/digits.csv.gz")).unwrap()
    }

    #[test]
    fn the_committed_file_holds_1797_digits() {
        let set = digits();
        assert_eq!(set.len(), 1797);
        assert_eq!(set.label_counts(), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    }

    #[test]
    fn enlarging_keeps_flat_areas_and_interpolates_between() {
        assert!(enlarge(&[16; 64]).iter().all(|&b| b == 255));
        assert!(enlarge(&[0; 64]).iter().all(|&b| b == 0));
        let mut half = [0; 64];
        for row in 0..8 {
            half[row * 8 + 4..row * 8 + 8].fill(16);
        }
        let image = enlarge(&half);
        // Between the centres of source pixels 3 and 4: eighths 1, 3, 5, 7 of white.
        assert_eq!(image[..SIDE][13..20], [0, 32, 96, 159, 223, 255, 255]);
    }

    #[test]
    fn a_split_hands_out_every_digit_once() {
        let all = digits();
        let boards = [vec![0, 1, 2], vec![2, 3], vec![9]];
        let split = split(&all, &boards, 20, 5).unwrap();
        assert_eq!(split.boards[0].label_counts(), [20, 20, 20, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(split.boards[1].label_counts()[2], 20);
        assert_eq!(split.test.label_counts()[2], 177 - 40);
        let mut hashes: Vec<_> =
            split.boards.iter().chain([&split.test]).flat_map(|set| (0..set.len()).map(|i| set.hash(i))).collect();
        let mut expected: Vec<_> = (0..all.len()).map(|i| all.hash(i)).collect();
        hashes.sort_unstable();
        expected.sort_unstable();
        assert_eq!(hashes, expected);
    }

    #[test]
    fn impossible_splits_and_bad_lines_are_named() {
        let all = digits();
        let error = split(&all, &[vec![3], vec![3]], 100, 0).unwrap_err().to_string();
        assert!(error.contains("class 3"), "{error}");
        assert!(split(&all, &[vec![10]], 1, 0).is_err());
        for bad in ["1,2,3", &["17"; 65].join(","), &["x"; 65].join(","), &["1"; 66].join(",")] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains("line 1"), "{error}");
        }
        let mut label = vec!["1"; 64];
        label.push("12");
        assert!(matches!(parse(&label.join(",")), Err(DataError::LabelOutOfRange { label: 12, .. })));
    }
}
