use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use twin_shared::id::JobId;

use super::*;

/// A host of the test's: answers as it is told to, and tells two events of each job.
async fn host(mut control: Control, answer: Answer) {
    while let Some(asked) = control.asked.recv().await {
        let _ = asked.answer.send(answer.clone());
        for job in [JobId(7), JobId(8)] {
            let _ = control.events.send(Event::now(job, Happened::Queued));
            let ended = Happened::Ended { state: "finished".into(), why: None };
            let _ = control.events.send(Event::now(job, ended));
        }
    }
}

fn start() -> Request {
    Request::JobStart { spec: "devices = \"all\"".into(), watch: true }
}

async fn asked(data_dir: &Path, request: Request) -> Result<Conversation, ControlError> {
    let data_dir = data_dir.to_owned();
    tokio::task::spawn_blocking(move || ask(&data_dir, &request)).await.unwrap()
}

async fn told(mut host: Conversation) -> Vec<Event> {
    let events = move || std::iter::from_fn(|| host.next_event().unwrap()).collect();
    tokio::task::spawn_blocking(events).await.unwrap()
}

/// Whatever length the data directory's path has.
fn directories() -> Vec<(tempfile::TempDir, PathBuf)> {
    [1, 60]
        .into_iter()
        .map(|times| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("deep/".repeat(times));
            std::fs::create_dir_all(&path).unwrap();
            (directory, path)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_hears_its_job_to_the_end() {
    for (_keep, path) in directories() {
        let control = Control::start(&path).unwrap();
        let mode = std::fs::metadata(path.join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let serving = tokio::spawn(host(control, Answer::Done { job: Some(JobId(8)), version: None }));
        let conversation = asked(&path, start()).await.unwrap();
        assert_eq!(conversation.answer, Answer::Done { job: Some(JobId(8)), version: None });
        let events = told(conversation).await;
        assert_eq!(events.len(), 2, "{events:?}");
        assert!(events.iter().all(|event| event.job == JobId(8)) && events[1].is_end());
        serving.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start(directory.path()).unwrap();
    let serving = tokio::spawn(host(control, Answer::Refused("no".into())));
    let error = asked(directory.path(), start()).await.unwrap_err();
    assert_eq!(error.to_string(), "no");
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_harms_nobody() {
    use std::io::{Read, Write};
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start(directory.path()).unwrap();
    let serving = tokio::spawn(host(control, Answer::Done { job: None, version: None }));
    let socket = directory.path().join(SOCKET);
    for bytes in [&b"\n"[..], b"{\"ask\":\"dance\"}\n", b"{\"ask\":\"job_stop\",\"job\":1,\"more\":2}\n", b"\xff\xfe\n"]
    {
        let (socket, bytes) = (socket.clone(), bytes.to_vec());
        let said = tokio::task::spawn_blocking(move || {
            let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
            stream.write_all(&bytes).unwrap();
            let mut said = String::new();
            let _ = stream.read_to_string(&mut said);
            said
        });
        let said = said.await.unwrap();
        assert!(said.is_empty() || said.starts_with("{\"refused\":\"the host does not understand"), "{said}");
    }
    assert!(asked(directory.path(), Request::JobStop { job: JobId(1) }).await.is_ok());
    serving.abort();
}

#[tokio::test]
async fn nobody_serves_is_said_so() {
    let directory = tempfile::tempdir().unwrap();
    let error = asked(directory.path(), start()).await.unwrap_err();
    assert!(matches!(error, ControlError::NobodyServes(_)), "{error}");
    // The socket of a host that was killed is there still.
    drop(std::os::unix::net::UnixListener::bind(directory.path().join(SOCKET)).unwrap());
    let error = asked(directory.path(), start()).await.unwrap_err();
    assert!(matches!(error, ControlError::NobodyServes(_)), "{error}");
    let _control = Control::start(directory.path()).unwrap();
}

#[tokio::test]
async fn one_directory_is_served_by_one_host() {
    let directory = tempfile::tempdir().unwrap();
    let first = Control::start(directory.path()).unwrap();
    assert!(matches!(Control::start(directory.path()), Err(ControlStartError::Taken(_))));
    drop(first);
    assert!(Control::start(directory.path()).is_ok());
}

#[test]
fn requests_and_events_are_pinned() {
    let pinned = [
        (serde_json::to_string(&start()).unwrap(), r#"{"ask":"job_start","spec":"devices = \"all\"","watch":true}"#),
        (serde_json::to_string(&Request::JobPause { job: JobId(3) }).unwrap(), r#"{"ask":"job_pause","job":3}"#),
        (serde_json::to_string(&Answer::Done { job: Some(JobId(3)), version: None }).unwrap(), r#"{"done":{"job":3}}"#),
        (
            serde_json::to_string(&Event {
                at: 1.5,
                job: JobId(3),
                happened: Happened::Left { device: "pi4".parse().unwrap(), why: "it stayed away".into() },
            })
            .unwrap(),
            r#"{"at":1.5,"job":3,"event":"left","device":"pi4","why":"it stayed away"}"#,
        ),
    ];
    for (said, expected) in pinned {
        assert_eq!(said, expected);
    }
}
