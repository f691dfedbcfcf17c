//! Who may connect: asked by the broker at every connection, answered by whoever keeps the list of devices.

use super::Boxed;
use crate::enroll::Fingerprint;
use twin_shared::id::DeviceId;

/// The keeper of passwords, certificates and revocations.
pub trait Credentials: Send + Sync {
    /// Whether this is the device's password. The comparison must take the same time whatever the password.
    fn verify<'a>(&'a self, device: &'a DeviceId, password: &'a [u8]) -> Boxed<'a, bool>;

    /// Whether this is the device's certificate: one that was replaced is no longer, however long it would be valid.
    fn holds<'a>(&'a self, device: &'a DeviceId, certificate: Fingerprint) -> Boxed<'a, bool>;

    /// Whether the device, however well it proves who it is, must stay outside: revoked, or never enrolled.
    fn is_revoked<'a>(&'a self, device: &'a DeviceId) -> Boxed<'a, bool>;
}
