//! New keys for a board while it works: another certificate for its connection, another sealing key for its payloads.
//!
//! The board makes its private key itself and sends a signing request; it never leaves the board. The next sealing
//! key is agreed on by X25519 and mixed with the present one, so that it cannot be computed from a recording, even by
//! who learns the present key later; it counts from the first message that the board seals with it.

use serde::{Deserialize, Serialize};
use x25519_dalek::{PublicKey, StaticSecret};

use super::seal::DeviceKey;

/// `up/renewal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenewalRequest<'a> {
    /// The board asks for the next keys.
    Keys {
        /// Its share of the agreement; names the request, too.
        share: [u8; 32],
        /// DER of a PKCS #10 request for a certificate; empty where the connection uses none.
        #[serde(borrow)]
        request: &'a [u8],
    },
}

/// `dn/renewal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenewalAnswer<'a> {
    /// The host wants the board to ask for keys now: its certificate ends before long, or somebody wants it so.
    Due,
    /// The keys that were asked for.
    Keys {
        /// The board's share in the request.
        asked: [u8; 32],
        /// The host's share.
        share: [u8; 32],
        /// DER of the board's certificate, and after it those that lead to an authority that was there before; empty
        /// where none was requested.
        chain: &'a [u8],
        /// DER of the authorities that the board trusts from now on, one after the other; empty likewise.
        authorities: &'a [u8],
    },
    /// Not now.
    Refused {
        /// The board's share in the request.
        asked: [u8; 32],
    },
}

/// One side of the agreement on a sealing key. Wiped when dropped.
pub struct Agreement(StaticSecret);

impl Agreement {
    /// With 32 random bytes, never used before.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        Self(StaticSecret::from(random))
    }

    /// What the other side is told.
    #[must_use]
    pub fn share(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }

    /// The key after `present`, the same on both sides. `board` and `host` are the shares. `None` for a share of the
    /// other's that lets nothing be agreed on.
    #[must_use]
    pub fn next_key(&self, present: &DeviceKey, board: &[u8; 32], host: &[u8; 32]) -> Option<DeviceKey> {
        let theirs = if *board == self.share() { host } else { board };
        let agreed = self.0.diffie_hellman(&PublicKey::from(*theirs));
        agreed.was_contributory().then(|| present.successor(agreed.as_bytes(), board, host))
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_and_nobody_else() {
        let present = DeviceKey::new([1; 32]);
        let (board, host) = (Agreement::new([2; 32]), Agreement::new([3; 32]));
        let shares = (board.share(), host.share());
        let on_board = board.next_key(&present, &shares.0, &shares.1).expect("agreed");
        let on_host = host.next_key(&present, &shares.0, &shares.1).expect("agreed");
        assert_eq!(on_board.expose(), on_host.expose());
        let others = [
            board.next_key(&DeviceKey::new([9; 32]), &shares.0, &shares.1),
            board.next_key(&present, &shares.0, &Agreement::new([4; 32]).share()),
            Agreement::new([4; 32]).next_key(&present, &shares.0, &shares.1),
        ];
        for other in others {
            assert_ne!(other.expect("agreed").expose(), on_board.expose());
        }
        assert_ne!(present.expose(), on_board.expose());
        assert!(board.next_key(&present, &shares.0, &[0; 32]).is_none(), "a share that decides the key alone");
    }

    #[test]
    fn keys_are_wiped_and_do_not_print() {
        const fn wiped<T: zeroize::ZeroizeOnDrop>() {}
        const { wiped::<DeviceKey>() };
        const { wiped::<StaticSecret>() };
        assert_eq!(std::format!("{:?}", DeviceKey::new([7; 32])), "DeviceKey(…)");
    }
}
