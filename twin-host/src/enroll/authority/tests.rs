use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::server::WebPkiClientVerifier;

use super::*;

fn device() -> DeviceId {
    "board1".parse().unwrap()
}

/// Whether whoever trusts these authorities takes this chain, leaf first, at this time.
fn takes(trusted: &str, chain: &str, now: SystemTime) -> bool {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    verifier.verify_client_cert(&chain[0], &chain[1..], now).is_ok()
}

#[test]
fn an_authority_is_made_once_and_found_again() {
    let home = tempfile::tempdir().unwrap();
    let first = Authority::open_or_create(home.path(), SystemTime::now()).unwrap();
    let again = Authority::open_or_create(home.path(), SystemTime::now()).unwrap();
    assert_eq!(first.certificate(), again.certificate());
    assert_eq!(first.trusted(), first.certificate());
    let certified = again.certify_device(&device(), SystemTime::now()).unwrap();
    assert!(takes(&first.trusted(), &certified.certificate, SystemTime::now()));
    assert!(again.trusts(certified.record.authority));
}

#[test]
fn two_at_once_make_one_authority() {
    let home = tempfile::tempdir().unwrap();
    let make = || Authority::open_or_create(home.path(), SystemTime::now()).unwrap().fingerprint();
    let made: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(made.iter().all(|fingerprint| *fingerprint == made[0]));
}

#[test]
fn after_a_rotation_old_and_new_are_taken_until_the_old_is_retired() {
    let home = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let first = Authority::open_or_create(home.path(), now).unwrap();
    let old_board = first.certify_device(&device(), now).unwrap();
    let second = Authority::rotate(home.path(), now).unwrap();
    assert_eq!((first.number(), second.number()), (1, 2));
    let new_board = second.certify_device(&device(), now).unwrap();
    let (knows_old, knows_both) = (first.trusted(), second.trusted());
    for (what, trusted, chain) in [
        ("a new certificate by who knows the old authority only", &knows_old, &new_board.certificate),
        ("a new certificate by who knows both", &knows_both, &new_board.certificate),
        ("an old certificate by who knows both", &knows_both, &old_board.certificate),
    ] {
        assert!(takes(trusted, chain, now), "{what}");
    }
    let left = Authority::retire(home.path()).unwrap();
    assert_eq!(left.fingerprint(), second.fingerprint());
    assert!(!takes(&left.trusted(), &old_board.certificate, now), "an old certificate after its authority is retired");
    assert!(takes(&left.trusted(), &new_board.certificate, now));
    assert!(!left.trusts(old_board.record.authority));
    let later = left.certify_device(&device(), now).unwrap();
    assert_eq!(CertificateDer::pem_slice_iter(later.certificate.as_bytes()).count(), 1, "the bridge is gone");
    assert!(matches!(Authority::retire(home.path()), Err(AuthorityError::NothingToRetire)));
    let third = Authority::rotate(home.path(), now).unwrap();
    assert_eq!(third.number(), 3, "numbers are not used twice");
}

#[test]
fn a_request_gives_its_key_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(home.path(), SystemTime::now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut greedy = parameters("board2", SystemTime::now(), AUTHORITY_VALIDITY);
    greedy.is_ca = IsCa::NoCa;
    greedy.subject_alt_names = CertificateParams::new(vec!["host.example".to_owned()]).unwrap().subject_alt_names;
    greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let request = greedy.serialize_request(&key).unwrap();
    let signed = authority.certify_request(&device(), request.der(), SystemTime::now()).unwrap();
    let (_, certificate) = x509_parser::parse_x509_certificate(&signed.chain[0]).unwrap();
    assert_eq!(certificate.subject().to_string(), "CN=board1");
    assert!(certificate.subject_alternative_name().unwrap().is_none());
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
    let mut broken = request.der().to_vec();
    let last = broken.len() - 1;
    broken[last] ^= 1;
    assert!(authority.certify_request(&device(), &broken, SystemTime::now()).is_err(), "not signed by its key");
    assert!(authority.certify_request(&device(), b"no request", SystemTime::now()).is_err());
}

#[test]
fn a_certificate_is_due_in_its_last_third() {
    let home = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let record = Authority::open_or_create(home.path(), now).unwrap().certify_device(&device(), now).unwrap().record;
    for (day, due) in [(0, false), (240, false), (250, true), (400, true)] {
        assert_eq!(record.is_due(now + day * DAY, CERTIFICATE_VALIDITY), due, "day {day}");
    }
}

#[test]
fn a_damaged_authority_is_not_replaced() {
    let home = tempfile::tempdir().unwrap();
    Authority::open_or_create(home.path(), SystemTime::now()).unwrap();
    let path = file(home.path(), 1);
    let whole = std::fs::read_to_string(&path).unwrap();
    let key_only = sections(&whole, "PRIVATE KEY").next().unwrap();
    for half in ["", key_only, whole.split_at(key_only.len()).1] {
        std::fs::write(&path, half).unwrap();
        assert!(Authority::open_or_create(home.path(), SystemTime::now()).is_err(), "{} bytes", half.len());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), half);
    }
}

#[test]
fn nobody_else_can_read_the_key() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("authority");
    Authority::open_or_create(&directory, SystemTime::now()).unwrap();
    Authority::rotate(&directory, SystemTime::now()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for number in [1, 2] {
        assert_eq!(mode(&file(&directory, number)), 0o600);
    }
}
