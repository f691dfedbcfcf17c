//! Changes over to renewed keys: a new connection, and nothing else is interrupted.

use std::time::Instant;

use tokio::time::timeout;

use super::{Agent, FAREWELL, Line};
use crate::keys::{self, Keys};
use crate::off_loop;
use crate::session::Input;
use crate::transport::{Connection, Dialer, News, Outgoing};

impl Agent {
    /// Keeps the keys for good, and connects with them. The host takes the former ones until it has seen these.
    pub(super) async fn change_over(&mut self, keys: Keys) {
        // What cannot be used must not take the place of what can.
        let dialer = match Dialer::new(&self.config.device, &keys, &self.config.broker, self.clock.provider()) {
            Ok(dialer) => dialer,
            Err(error) => return tracing::error!(%error, "new keys cannot be used; the present ones go on"),
        };
        let (file, stored) = (keys::file(&self.config.data_dir), keys.clone());
        if let Err(error) = off_loop(move || stored.store(&file)).await {
            return tracing::error!(%error, "new keys cannot be stored; the present ones go on");
        }
        tracing::info!("the keys are renewed");
        let down = Line::Down { retry_at: Instant::now() };
        if let Line::Up { connection, .. } | Line::Dialling { connection, .. } = std::mem::replace(&mut self.line, down)
        {
            let handled = std::mem::take(&mut self.handled).into_iter().map(Outgoing::Acknowledge);
            // It does not matter if it does not get through: the broker then says it for the board.
            let _ = timeout(FAREWELL, goodbye(connection, handled)).await;
        }
        self.mailbox.rekey(keys.sealing.clone(), self.boot);
        (self.dialer, self.keys) = (dialer, keys);
        self.outbox.clear();
        self.ping = None;
        self.tell(Input::Disconnected).await;
    }
}

async fn goodbye(mut connection: Connection, last: impl Iterator<Item = Outgoing>) {
    let outgoing = connection.outgoing().clone();
    let say = async {
        for word in last.chain([Outgoing::Disconnect]) {
            // An error means that the connection has ended.
            let _ = outgoing.send(word).await;
        }
    };
    // What still comes in is read, or it would hold up what goes out; it comes again.
    let read = async { while !matches!(connection.next().await, News::Lost(_)) {} };
    tokio::join!(say, read);
}
