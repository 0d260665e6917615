//! Reports the state of the process to the service manager. Source: sd_notify(3).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The process accepts requests.
pub(crate) fn ready() {
    tell("READY=1");
}

/// The process has begun to end.
pub(crate) fn stopping() {
    tell("STOPPING=1");
}

/// Without a manager nothing is sent. A failure to send does not end the process.
fn tell(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let bytes = path.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) {
        let _ = socket.send_to_addr(state.as_bytes(), &address);
    }
}
