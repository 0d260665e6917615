//! Carries bytes both ways, after both sides have switched protocols.

use std::io;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

/// The most bytes that are carried at once.
const PIECE: usize = 16 << 10;

/// Carries bytes until both sides have ended, one has failed, or neither has sent anything for `idle`.
pub(crate) async fn carry(client: OnUpgrade, upstream: OnUpgrade, idle: Duration) {
    let Ok((client, upstream)) = tokio::try_join!(client, upstream) else { return };
    let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
    let (from_upstream, to_upstream) = tokio::io::split(TokioIo::new(upstream));
    let (came, mut heard) = watch::channel(());
    let both = async {
        tokio::try_join!(
            copy(from_client, to_upstream, &came),
            copy(from_upstream, to_client, &came)
        )
    };
    let silence = async { while tokio::time::timeout(idle, heard.changed()).await.is_ok() {} };
    // Either side may end the tunnel, also with an error; no peer is left that could be told.
    tokio::select! { _ = both => {}, () = silence => {} }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    came: &watch::Sender<()>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let len = from.read(&mut piece).await?;
        if len == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..len]).await?;
        to.flush().await?;
        came.send_replace(());
    }
}
