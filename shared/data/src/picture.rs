//! A picture of any size becomes an image of 32 by 32 pixels.
//!
//! JPEG and PNG. The picture is turned upright where its EXIF data says so, transparency is laid over black, and the
//! whole of it is brought to 32 by 32 pixels: sides are scaled apart, so nothing is cut off. Each target pixel is the
//! mean of the source under a triangle as wide as two target pixels (two source pixels where the picture is smaller),
//! first along the rows, then along the columns. All in integers, so every processor gets the same image, and with it
//! the same [`SampleHash`](crate::SampleHash).

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbaImage};

use crate::image_set::{IMAGE_BYTES, Image, SIDE};

/// Longest file that is decoded, bytes.
pub const MAX_FILE: u64 = 64 << 20;
/// Most pixels that a picture may have.
pub const MAX_PIXELS: u64 = 40_000_000;
/// Most memory that a decoder may take for the picture, bytes: 40 million pixels of four bytes.
const MAX_ALLOCATION: u64 = 4 * MAX_PIXELS;
/// The endings of files that are taken for pictures.
pub const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];

/// Why a picture is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// No bytes.
    #[error("the file is empty")]
    Empty,
    /// Too many bytes.
    #[error("{0} bytes are over the limit of {MAX_FILE}")]
    TooLong(u64),
    /// Too many pixels: a mistake, or a decompression bomb.
    #[error("{width} × {height} pixels are over the limit of {} million", MAX_PIXELS / 1_000_000)]
    TooLarge {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// Another format.
    #[error("neither a JPEG nor a PNG")]
    Format,
    /// Damaged.
    #[error("damaged: {0}")]
    Damaged(String),
}

/// Reads and decodes a file.
///
/// # Errors
/// When it cannot be read, or is no picture within the limits.
pub fn read(path: &Path) -> Result<Box<Image>, PictureError> {
    let length = std::fs::metadata(path)?.len();
    if length > MAX_FILE {
        return Err(PictureError::TooLong(length));
    }
    decode(&std::fs::read(path)?)
}

/// Decodes a file's bytes.
///
/// # Errors
/// When they are no picture within the limits. Nothing larger than the limits is ever allocated.
pub fn decode(bytes: &[u8]) -> Result<Box<Image>, PictureError> {
    if bytes.is_empty() {
        return Err(PictureError::Empty);
    }
    if bytes.len() as u64 > MAX_FILE {
        return Err(PictureError::TooLong(bytes.len() as u64));
    }
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    match reader.format() {
        Some(ImageFormat::Jpeg | ImageFormat::Png) => {}
        Some(_) | None => return Err(PictureError::Format),
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_ALLOCATION);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(PictureError::Empty);
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(PictureError::TooLarge { width, height });
    }
    let orientation = decoder.orientation().map_err(damaged)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    picture.apply_orientation(orientation);
    Ok(shrink(&picture.into_rgba8()))
}

/// Whether a file's name ends like a picture's.
#[must_use]
pub fn is_named_so(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

/// Writes an image as a PNG, to be shown or exported.
///
/// # Errors
/// When the encoder refuses.
pub fn to_png(image: &Image) -> Result<Vec<u8>, PictureError> {
    let plane = SIDE * SIDE;
    let picture = image::RgbImage::from_fn(SIDE as u32, SIDE as u32, |x, y| {
        let at = y as usize * SIDE + x as usize;
        image::Rgb([image[at], image[plane + at], image[2 * plane + at]])
    });
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).map_err(damaged)?;
    Ok(bytes.into_inner())
}

/// A picture in 32 columns and 16 rows of a terminal: two pixels a character, the upper in the foreground's colour.
#[must_use]
pub fn to_blocks(image: &Image) -> String {
    let plane = SIDE * SIDE;
    let colour = |x: usize, y: usize| {
        let at = y * SIDE + x;
        format!("{};{};{}", image[at], image[plane + at], image[2 * plane + at])
    };
    let mut text = String::new();
    for y in (0..SIDE).step_by(2) {
        for x in 0..SIDE {
            text.push_str(&format!("\x1b[38;2;{}m\x1b[48;2;{}m▀", colour(x, y), colour(x, y + 1)));
        }
        text.push_str("\x1b[0m\n");
    }
    text
}

fn damaged(error: image::ImageError) -> PictureError {
    PictureError::Damaged(error.to_string().lines().next().unwrap_or_default().to_owned())
}

/// One side's weights: for each of the 32 target pixels the first source pixel and the weights from there on.
fn weights(source: usize) -> Vec<(usize, Vec<u64>)> {
    // In units of 1/64 source pixel: the centre of target pixel t lies at (2 t + 1) · source, that of source pixel s
    // at 64 s + 32, and the triangle reaches as far as one target pixel is wide, or one source pixel.
    let reach = (2 * source).max(2 * SIDE) as i64;
    (0..SIDE as i64)
        .map(|t| {
            let centre = (2 * t + 1) * source as i64;
            let weight = |s: i64| reach - (centre - (64 * s + 32)).abs();
            let first = ((centre - reach - 32).div_euclid(64) + 1).max(0);
            let taken = (first..source as i64).map(weight).take_while(|&w| w > 0);
            (first as usize, taken.map(|w| w as u64).collect())
        })
        .collect()
}

fn shrink(picture: &RgbaImage) -> Box<Image> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let across = weights(width);
    let totals: Vec<u64> = across.iter().map(|(_, weights)| weights.iter().sum()).collect();
    // Rows first, with eight bits below the point; then the columns of what they gave.
    let mut rows = vec![[0u32; 3]; height * SIDE];
    let mut blended = vec![[0u64; 3]; width];
    for (y, row) in picture.rows().enumerate() {
        for (pixel, out) in row.zip(&mut blended) {
            let [red, green, blue, alpha] = pixel.0.map(u64::from);
            *out = [red, green, blue].map(|value| (value * alpha + 127) / 255);
        }
        for (t, ((first, weights), total)) in across.iter().zip(&totals).enumerate() {
            let mut sums = [0u64; 3];
            for (pixel, weight) in blended[*first..].iter().zip(weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += value * weight;
                }
            }
            rows[y * SIDE + t] = sums.map(|sum| ((sum * 256 + total / 2) / total) as u32);
        }
    }
    let mut image = Box::new([0; IMAGE_BYTES]);
    for (t, (first, weights)) in weights(height).iter().enumerate() {
        let total = weights.iter().sum::<u64>() * 256;
        for x in 0..SIDE {
            for plane in 0..3 {
                let column = weights
                    .iter()
                    .enumerate()
                    .map(|(k, weight)| u64::from(rows[(first + k) * SIDE + x][plane]) * weight);
                let value = (column.sum::<u64>() + total / 2) / total;
                image[plane * SIDE * SIDE + t * SIDE + x] = u8::try_from(value).expect("a mean of bytes");
            }
        }
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, Luma, Rgb, RgbImage, Rgba};
    use proptest::prelude::*;

    fn png(picture: &DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    /// A PNG whose header claims a size, with no pixels behind it.
    fn claimed(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = png(&DynamicImage::ImageRgb8(RgbImage::new(1, 1)));
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        // The header's checksum, by the definition.
        let checksum = bytes[12..29].iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
        });
        bytes[29..33].copy_from_slice(&(!checksum).to_be_bytes());
        bytes
    }

    #[test]
    fn an_image_of_the_right_size_stays_as_it_is() {
        let picture = RgbImage::from_fn(32, 32, |x, y| Rgb([x as u8 * 3, y as u8 * 5, (x * y) as u8]));
        let image = decode(&png(&DynamicImage::ImageRgb8(picture.clone()))).unwrap();
        for (x, y, pixel) in picture.enumerate_pixels() {
            let at = y as usize * 32 + x as usize;
            assert_eq!([image[at], image[1024 + at], image[2048 + at]], pixel.0, "{x} {y}");
        }
        assert_eq!(decode(&to_png(&image).unwrap()).unwrap(), image);
    }

    #[test]
    fn halving_is_the_mean_under_a_triangle() {
        // Columns 0, 0, 64, 64, 0, 0, 64, 64 …: the triangle over target pixel 1 has weights 1 3 3 1 on columns 1..=4.
        let picture = ImageBuffer::from_fn(64, 64, |x, _| Luma([if x / 2 % 2 == 1 { 64u8 } else { 0 }]));
        let image = decode(&png(&DynamicImage::ImageLuma8(picture))).unwrap();
        assert_eq!(image[33], 48);
        assert_eq!(image[34], 16);
    }

    #[test]
    fn transparency_lies_over_black_and_a_jpeg_is_read() {
        let veil = image::RgbaImage::from_pixel(40, 20, Rgba([200, 100, 50, 128]));
        let image = decode(&png(&DynamicImage::ImageRgba8(veil))).unwrap();
        assert_eq!([image[0], image[1024], image[2048]], [100, 50, 25]);
        let mut jpeg = Cursor::new(Vec::new());
        RgbImage::from_pixel(50, 70, Rgb([90, 90, 90])).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
        assert!(decode(jpeg.get_ref()).unwrap().iter().all(|&byte| byte.abs_diff(90) <= 1));
    }

    #[test]
    fn what_is_no_picture_is_said_in_one_line() {
        let large = decode(&claimed(10_000, 10_000)).unwrap_err();
        assert!(matches!(large, PictureError::TooLarge { .. }), "{large}");
        let bomb = decode(&claimed(u32::MAX >> 1, u32::MAX >> 1)).unwrap_err().to_string();
        let cut = png(&DynamicImage::ImageRgb8(RgbImage::new(64, 64)));
        let cut = decode(&cut[..cut.len() / 2]).unwrap_err().to_string();
        let empty = decode(b"").unwrap_err().to_string();
        let text = decode(b"a letter to the host").unwrap_err().to_string();
        for said in [bomb, cut, empty, text] {
            assert_eq!(said.lines().count(), 1, "{said}");
        }
        assert!(matches!(decode(b"GIF89a\x01\0\x01\0"), Err(PictureError::Format)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_plain_picture_stays_plain_at_any_size(width in 1u32..200, height in 1u32..200, value: u8) {
            let picture = RgbImage::from_pixel(width, height, Rgb([value; 3]));
            let image = decode(&png(&DynamicImage::ImageRgb8(picture))).unwrap();
            prop_assert!(image.iter().all(|&byte| byte == value));
        }

        #[test]
        fn noise_is_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = bytes;
            let header = b"\x89PNG\r\n\x1a\n";
            for length in [0, header.len().min(bytes.len())] {
                bytes[..length].copy_from_slice(&header[..length]);
                let _ = decode(&bytes);
            }
        }
    }
}
