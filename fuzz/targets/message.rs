//! Arbitrary bytes as every message of the wire: refused, or a message that encodes and reads back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twin_shared::wire::telemetry::Telemetry;
use twin_shared::wire::{
    BlobAck, BlobMessage, BoardState, Channel, Command, HostState, LogLine, MAX_CHUNK, Nonce, RenewalAnswer,
    RenewalRequest, Reply, Topic, TwinDocument, codec,
};

/// A macro, because a message may borrow from its bytes.
macro_rules! whole {
    ($message:ty, $bytes:expr) => {{
        let Ok(message) = codec::decode::<$message>($bytes) else { return };
        let mut buffer = vec![0; $bytes.len() + MAX_CHUNK];
        let encoded = codec::encode(&message, &mut buffer).expect("a message that was read can be written").to_vec();
        // Postcard takes longer forms of a number, so the bytes may differ; the message may not, and gets no longer.
        assert!(encoded.len() <= $bytes.len());
        let again = codec::decode::<$message>(&encoded).expect("what was written can be read");
        // NaN is not equal to itself: compared as it prints.
        assert_eq!(format!("{message:?}"), format!("{again:?}"));
    }};
}

fuzz_target!(|input: &[u8]| {
    let [channel, bytes @ ..] = input else { return };
    if let Ok(text) = core::str::from_utf8(bytes)
        && let Some(topic) = Topic::parse(text)
    {
        assert_eq!(topic.to_string(), text);
    }
    let channel = Channel::ALL[usize::from(*channel) % Channel::ALL.len()];
    match channel {
        Channel::DnState => whole!(HostState, bytes),
        Channel::UpState => whole!(BoardState, bytes),
        Channel::UpReported | Channel::DnDesired => whole!(TwinDocument, bytes),
        Channel::UpTelemetry => whole!(Telemetry, bytes),
        Channel::UpPing | Channel::DnPong => whole!(Nonce, bytes),
        Channel::DnCommand => whole!(Command, bytes),
        Channel::UpCommand => whole!(Reply, bytes),
        Channel::UpBlob | Channel::DnBlob => whole!(BlobMessage<'_>, bytes),
        Channel::UpAck | Channel::DnAck => whole!(BlobAck, bytes),
        Channel::UpLog => whole!(LogLine, bytes),
        Channel::UpRenewal => whole!(RenewalRequest<'_>, bytes),
        Channel::DnRenewal => whole!(RenewalAnswer<'_>, bytes),
    }
});
