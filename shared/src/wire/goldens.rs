//! The bytes of every message of version 1. A released line is never changed: an old board or host speaks it.

use super::*;
use crate::id::{BlobHash, DatasetVersion, JobId, ModelVersion, RoundId};
use crate::model::{Architecture, Site};
use crate::plan::{Augmentation, Compression, EpochPlan, LabelKind, Method, Recipe};

/// Encodes to the pinned bytes, and those decode to the message.
fn pinned<'a, T>(message: &T, expected: &str, bytes: &'a mut Vec<u8>)
where
    T: serde::Serialize + serde::Deserialize<'a> + PartialEq + core::fmt::Debug,
{
    bytes.resize(512, 0);
    let length = codec::encode(message, bytes).expect("fits").len();
    bytes.truncate(length);
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, expected, "{message:?}");
    assert_eq!(&codec::decode::<T>(bytes).expect("decodes"), message);
}

macro_rules! pin {
    ($($message:expr => $expected:literal),+ $(,)?) => {
        $(pinned(&$message, $expected, &mut Vec::new());)+
    };
}

const HASH: BlobHash = BlobHash([0xab; 32]);
const OLD: DatasetVersion = DatasetVersion([1; 32]);
const NEW: DatasetVersion = DatasetVersion([2; 32]);

#[test]
fn states() {
    let birth = Birth {
        sequence: 300,
        versions: WIRE_VERSIONS,
        agent: "0.1.0".try_into().expect("short"),
        capabilities: Capabilities {
            can_train: true,
            emulated: false,
            models: heapless::Vec::from_slice(&[Architecture::Vgg8, Architecture::Resnet8x4]).expect("two"),
            memory_mib: 1024,
            cores: 4,
        },
        dataset: Some(DatasetOffer { version: DatasetVersion([1; 32]), bytes: 5, samples: 2 }),
    };
    pin! {
        BoardState::Online(birth) => "00ac02010205302e312e3001000200018008040101010101010101010101010101010101010101010101010101010101010101010502",
        BoardState::Offline { sequence: 300 } => "01ac02",
        HostState { online: true, epoch: 7, versions: WIRE_VERSIONS } => "01070102",
        Nonce(1 << 40) => "808080808020",
        TwinDocument { version: 3, job: JobId(1), round: RoundId(2), state: HASH } => "030102abababababababababababababababababababababababababababababababab",
    }
}

#[test]
fn orders_and_replies() {
    let assignment = Assignment {
        job: JobId(1),
        round: RoundId(2),
        architecture: Architecture::Resnet8x4,
        site: Site::Local,
        base: HASH,
        plan: EpochPlan { seed: 9, epoch: 2, batch: 64, augmentation: Augmentation { crop_padding: 4, flip: true } },
        recipe: Recipe::student(20),
        method: Method::SimKd,
        labels: LabelKind::Vector,
        samples: 500,
        batches_per_block: 4,
        uplink_bits_per_second: 1_000_000,
        deadline_ms: 60_000,
    };
    let dataset = DatasetVersion([1; 32]);
    let sparing = Sparing { compression: Compression::Int8, common: HASH, upload: true };
    let trained = TrainedEpoch {
        job: JobId(1),
        round: RoundId(2),
        state: HASH,
        samples: 500,
        loss: 0.5,
        training_ms: 1000,
        starved_ms: 10,
    };
    let student = StudentCalibration {
        architecture: Architecture::Resnet8x4,
        seconds_per_sample: 0.0625,
        peak_memory_kib: 131_072,
        fits: true,
    };
    let calibrated = BoardCalibration {
        libtorch: "2.9.0".try_into().expect("short"),
        kernel: "6.1.0".try_into().expect("short"),
        threads: 4,
        batch: 64,
        megahertz: Some(1500),
        students: heapless::Vec::from_slice(&[student]).expect("one"),
    };
    let model = ModelOffer { version: ModelVersion([3; 32]), job: JobId(1), bundle: HASH, bytes: 300 };
    let failed = Status::Failed { code: FailureCode::Missing, message: "no".try_into().expect("short") };
    pin! {
        Command { id: 1, order: Order::Rebirth } => "0100",
        Command { id: 2, order: Order::SendDataset(DatasetVersion([1; 32])) } => "02010101010101010101010101010101010101010101010101010101010101010101",
        Command { id: 3, order: Order::Assign(assignment) } => "030201020100abababababababababababababababababababababababababababababababab09024004019a9999999999a93fcdccccccccccec3ffa7e6abc7493483f140001f40304c0843de0d403",
        Command { id: 4, order: Order::Stop(JobId(1)) } => "040301",
        Reply { command: 1, status: Status::Accepted } => "0100",
        Reply { command: 1, status: Status::Running { step: 3, steps: 8 } } => "01010308",
        Reply { command: 1, status: Status::Trained(trained) } => "01020102ababababababababababababababababababababababababababababababababf4030000003fe8070a",
        Reply { command: 1, status: Status::Done } => "0103",
        Command { id: 5, order: Order::Calibrate { batch: 64 } } => "050440",
        Reply { command: 5, status: Status::Calibrated(calibrated) } => "050505322e392e3005362e312e30044001dc0b01010000803d80800801",
        Command { id: 6, order: Order::AssignOn { dataset, assignment, sparing } } => "0605010101010101010101010101010101010101010101010101010101010101010101020100abababababababababababababababababababababababababababababababab09024004019a9999999999a93fcdccccccccccec3ffa7e6abc7493483f140001f40304c0843de0d40302abababababababababababababababababababababababababababababababab01",
        Command { id: 7, order: Order::SendDelta { from: OLD, to: NEW } } => "070601010101010101010101010101010101010101010101010101010101010101010202020202020202020202020202020202020202020202020202020202020202",
        Command { id: 8, order: Order::Activate(model) } => "0807030303030303030303030303030303030303030303030303030303030303030301ababababababababababababababababababababababababababababababababac02",
        Reply { command: 1, status: failed } => "010403026e6f",
        LogLine { level: LogLevel::Error, text: "hot".try_into().expect("short") } => "0103686f74",
    }
}

#[test]
fn blobs() {
    let (job, round) = (JobId(1), RoundId(2));
    let offer = |purpose| BlobMessage::Manifest(Manifest { blob: HASH, size: 1000, chunk: 64, purpose });
    pin! {
        offer(Purpose::Dataset(DatasetVersion([1; 32]))) => "00ababababababababababababababababababababababababababababababababe80740000101010101010101010101010101010101010101010101010101010101010101",
        offer(Purpose::Student { job, round }) => "00ababababababababababababababababababababababababababababababababe80740010102",
        offer(Purpose::Base { job, round }) => "00ababababababababababababababababababababababababababababababababe80740020102",
        offer(Purpose::Labels { job, round, index: 3 }) => "00ababababababababababababababababababababababababababababababababe8074003010203",
        offer(Purpose::Telemetry) => "00ababababababababababababababababababababababababababababababababe8074004",
        offer(Purpose::Probe(Nonce(300))) => "00ababababababababababababababababababababababababababababababababe8074005ac02",
        offer(Purpose::DatasetDelta { from: OLD, to: NEW }) => "00ababababababababababababababababababababababababababababababababe807400601010101010101010101010101010101010101010101010101010101010101010202020202020202020202020202020202020202020202020202020202020202",
        offer(Purpose::Classes { version: 2 }) => "00ababababababababababababababababababababababababababababababababe807400702",
        offer(Purpose::Waiting) => "00ababababababababababababababababababababababababababababababababe8074009",
        offer(Purpose::WaitingLabels) => "00ababababababababababababababababababababababababababababababababe807400a",
        offer(Purpose::Model { version: ModelVersion([3; 32]) }) => "00ababababababababababababababababababababababababababababababababe80740080303030303030303030303030303030303030303030303030303030303030303",
        BlobMessage::Chunk { blob: HASH, index: 300, bytes: &[1, 2, 3] } => "01ababababababababababababababababababababababababababababababababac0203010203",
        BlobAck::Holding { blob: HASH, base: 5, beyond: 2, credit: 21 } => "00abababababababababababababababababababababababababababababababab050215",
        BlobAck::Complete { blob: HASH } => "01abababababababababababababababababababababababababababababababab",
        BlobAck::Refused { blob: HASH, why: Refusal::Hash } => "02abababababababababababababababababababababababababababababababab02",
        BlobAck::Refused { blob: HASH, why: Refusal::Base } => "02abababababababababababababababababababababababababababababababab04",
    }
}

#[test]
fn renewals() {
    let (asked, share) = ([1; 32], [2; 32]);
    pin! {
        RenewalRequest::Keys { share: asked, request: &[3, 4] } => "000101010101010101010101010101010101010101010101010101010101010101020304",
        RenewalAnswer::Due => "00",
        RenewalAnswer::Keys { asked, share, chain: &[5], authorities: &[6, 7] } => "01010101010101010101010101010101010101010101010101010101010101010102020202020202020202020202020202020202020202020202020202020202020105020607",
        RenewalAnswer::Refused { asked } => "020101010101010101010101010101010101010101010101010101010101010101",
    }
}
