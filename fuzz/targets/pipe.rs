//! Arbitrary bytes as frames between a resident program and its trainer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twin_shared::pipe::{Event, Request, encode_frame, read_frame};

fuzz_target!(|input: &[u8]| {
    let mut pipe = input;
    while let Ok(event) = read_frame::<_, Event>(&mut pipe) {
        let frame = encode_frame(&event).expect("what was read can be written");
        let again: Event = read_frame(&mut frame.as_slice()).expect("what was written can be read");
        assert_eq!(format!("{event:?}"), format!("{again:?}"));
    }
    let mut pipe = input;
    while let Ok(request) = read_frame::<_, Request>(&mut pipe) {
        assert!(encode_frame(&request).is_ok());
    }
});
