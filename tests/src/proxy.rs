//! A TCP proxy between a board and its broker that stalls, cuts, swallows and counts.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// What happens to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// They pass.
    None,
    /// Nothing is read: both sides' buffers fill up.
    Stall,
    /// They are read and thrown away: nobody hears anything, and nobody is told.
    BlackHole,
}

/// The way of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

#[derive(Debug, Default)]
struct Shared {
    fault: AtomicU8,
    up: AtomicU64,
    down: AtomicU64,
    over: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Shared {
    fn fault(&self) -> Fault {
        match self.fault.load(Ordering::Relaxed) {
            0 => Fault::None,
            1 => Fault::Stall,
            _ => Fault::BlackHole,
        }
    }
}

/// The proxy; it ends with its owner.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy on a free port of loopback to this one.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("a port");
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.over.load(Ordering::Relaxed) {
                    return;
                }
                // A broker that is away is what it is without a proxy: a connection that ends.
                if let (Ok(client), Ok(server)) = (client, TcpStream::connect(target)) {
                    join(&accepting, client, server);
                }
            }
        });
        Self { address, shared }
    }

    /// Where to connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens to all bytes from now on.
    pub fn set(&self, fault: Fault) {
        self.shared.fault.store(fault as u8, Ordering::Relaxed);
    }

    /// Cuts every connection.
    pub fn reset(&self) {
        for stream in self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // One that has ended already cannot be cut.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Bytes carried from boards and to boards.
    #[must_use]
    pub fn carried(&self) -> (u64, u64) {
        (self.shared.up.load(Ordering::Relaxed), self.shared.down.load(Ordering::Relaxed))
    }

    /// Waits until so many more bytes have come from boards.
    ///
    /// # Panics
    /// When they have not in a minute.
    pub fn wait_for_up(&self, more: u64) {
        let from = self.carried().0;
        for _ in 0..6000 {
            if self.carried().0 >= from + more {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("of {more} bytes {} came", self.carried().0 - from);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.reset();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn join(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    for stream in [&client, &server] {
        // Without it small messages wait for acknowledgements, which no board's own connection does.
        let _ = stream.set_nodelay(true);
        if let Ok(copy) = stream.try_clone() {
            shared.streams.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
        }
    }
    let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { return };
    for (way, from, to) in [(Way::Up, client, server), (Way::Down, server_too, client_too)] {
        let shared = Arc::clone(shared);
        thread::spawn(move || carry(&shared, way, from, to));
    }
}

fn carry(shared: &Shared, way: Way, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        while shared.fault() == Fault::Stall && !shared.over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        let Ok(read @ 1..) = from.read(&mut buffer) else { break };
        let counter = match way {
            Way::Up => &shared.up,
            Way::Down => &shared.down,
        };
        counter.fetch_add(read as u64, Ordering::Relaxed);
        let passes = shared.fault() != Fault::BlackHole;
        if passes && to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
