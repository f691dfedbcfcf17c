use rcgen::{BasicConstraints, CertificateSigningRequestParams, IsCa, Issuer};
use twin_shared::wire::seal::DeviceKey;

use super::*;
use crate::config::{Credentials, Security};

fn device() -> DeviceId {
    "board1".parse().expect("a name")
}

/// Keys of an enrolment, with something for TLS in them.
fn keys() -> Keys {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("sealing.key"), "a".repeat(64)).expect("written");
    let credentials = Credentials {
        sealing_key: file("sealing.key"),
        certificate: file("device.crt"),
        private_key: file("device.key"),
        authority: file("ca.crt"),
    };
    let keys = Keys::load(&credentials, Security::Plain, &file("keys")).expect("loaded");
    let tls = TlsKeys { chain: Vec::new(), key: Zeroizing::new(vec![1]), authorities: Vec::new() };
    keys.renewed(DeviceKey::new([5; 32]), Some(tls))
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let der = params.self_signed(&key).expect("signed").der().to_vec();
    Authority { issuer: Issuer::new(params, key), der }
}

impl Authority {
    fn sign(&self, request: &[u8], name: &str) -> Vec<u8> {
        let request = CertificateSigningRequestParams::from_der(&request.into()).expect("a request");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.signed_by(&request.public_key, &self.issuer).expect("signed").der().to_vec()
    }
}

#[test]
fn the_next_keys_are_those_that_both_sides_agreed_on() {
    let (keys, authority) = (keys(), authority());
    let mut renewal = Renewal::default();
    let now = Instant::now();
    let asked = renewal.ask(&device(), &keys, now, [7; 32]).expect("a key").expect("a request");
    assert_eq!(renewal.ask(&device(), &keys, now, [8; 32]).expect("fine"), None, "one is under way");
    let host = Agreement::new([9; 32]);
    let chain = authority.sign(&asked.request, "board1");
    let answer = |share| RenewalAnswer::Keys { asked: asked.share, share, chain: &chain, authorities: &authority.der };
    let taken = renewal.take(&answer(host.share()), &device(), &keys).expect("taken");
    let on_host = host.next_key(&keys.sealing, &asked.share, &host.share()).expect("agreed");
    assert_eq!(taken.sealing.expose(), on_host.expose());
    let tls = taken.tls.expect("a certificate");
    assert_eq!((tls.chain.len(), tls.authorities.len()), (1, 1));
    let again = renewal.take(&answer(host.share()), &device(), &keys);
    assert!(matches!(again, Err(RenewalError::Unasked)), "once");
}

#[test]
fn what_does_not_fit_is_not_taken() {
    let (keys, ours, theirs) = (keys(), authority(), authority());
    let other = KeyPair::generate().expect("a key");
    let others = CertificateParams::default().serialize_request(&other).expect("a request");
    let share = Agreement::new([9; 32]).share();
    for (what, case) in [
        ("another's name", 0),
        ("another's key", 1),
        ("an authority that did not sign it", 2),
        ("no authority", 3),
        ("no certificate", 4),
        ("nonsense", 5),
        ("a share that decides alone", 6),
        ("the host's refusal", 7),
        ("an answer to something else", 8),
    ] {
        let mut renewal = Renewal::default();
        let asked = renewal.ask(&device(), &keys, Instant::now(), [7; 32]).expect("a key").expect("a request");
        let good = ours.sign(&asked.request, "board1");
        let chain = match case {
            0 => ours.sign(&asked.request, "board2"),
            1 => ours.sign(others.der(), "board1"),
            4 => Vec::new(),
            5 => vec![0x30, 0x82, 1, 2, 3],
            _ => good,
        };
        let authorities = match case {
            2 => theirs.der.clone(),
            3 => Vec::new(),
            _ => ours.der.clone(),
        };
        let answer = match case {
            6 => RenewalAnswer::Keys { asked: asked.share, share: [0; 32], chain: &chain, authorities: &authorities },
            7 => RenewalAnswer::Refused { asked: asked.share },
            8 => RenewalAnswer::Keys { asked: [1; 32], share, chain: &chain, authorities: &authorities },
            _ => RenewalAnswer::Keys { asked: asked.share, share, chain: &chain, authorities: &authorities },
        };
        assert!(renewal.take(&answer, &device(), &keys).is_err(), "{what}");
    }
}
