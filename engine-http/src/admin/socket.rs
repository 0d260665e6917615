//! The control socket: a Unix socket for the operators of this machine.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use oncekey::{Engine, ErrorKind};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::caller::Caller;
use super::gate;
use super::refusal::Refusal;

/// A control socket that is being served, until this is dropped; then its file is removed, and the note that named it.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    /// Whose note names the path.
    engine: Engine,
    /// The file that was bound: another process may have put its own in its place.
    inode: u64,
    serving: JoinHandle<()>,
}

impl ControlSocket {
    /// Where a store's owner listens when nothing else is said: a name made of the store's own in
    /// `/run/oncekey` where that may be written, else in `$XDG_RUNTIME_DIR/oncekey`, else in
    /// `oncekey-UID` of the directory for temporary files. Missing directories are made with mode
    /// 0700. `store` is the path of a directory, or other text that tells the store from others.
    ///
    /// # Errors
    /// When the directory cannot be made, or belongs to another user.
    pub fn default_path(store: impl AsRef<Path>) -> io::Result<PathBuf> {
        let store = store.as_ref();
        // The store may not exist yet; its parent gives it the same name however it is written.
        let whole = fs::canonicalize(store).or_else(|_| {
            let parent = match store.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            Ok::<_, io::Error>(
                fs::canonicalize(parent)?.join(store.file_name().unwrap_or_default()),
            )
        });
        let whole = whole.unwrap_or_else(|_| store.to_owned());
        let hash = blake3::hash(whole.as_os_str().as_encoded_bytes()).to_hex();
        Ok(directory()?.join(format!("{}.sock", &hash[..16])))
    }

    /// The text that the engine's owner note has for the command line to find this process:
    /// `pid 4242`, and `control unix:/run/oncekey/3f1c.sock`. [`Admin::control_socket`](crate::Admin::control_socket)
    /// writes it.
    pub fn note(path: &Path) -> String {
        format!("pid {}\ncontrol unix:{}\n", std::process::id(), path.display())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Binds `path` and serves `router` there, on the tokio runtime of the caller, and has the store say so.
    pub(crate) fn serve(path: PathBuf, router: Router, engine: Engine) -> io::Result<Self> {
        let is_socket = fs::symlink_metadata(&path).is_ok_and(|file| file.file_type().is_socket());
        if is_socket {
            // A process that was killed left it behind: the holder of the store may take its place.
            fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let inode = fs::symlink_metadata(&path)?.ino();
        let router = router.layer(from_fn(peer_only));
        let service = router.into_make_service_with_connect_info::<Peer>();
        let serving = tokio::spawn(async move {
            // It ends with its task, and never by itself.
            let _ = axum::serve(listener, service).await;
        });
        let socket = Self { path, engine, inode, serving };
        match socket.engine.set_owner_note(Self::note(&socket.path)) {
            Err(error) if error.kind() != ErrorKind::Unsupported => Err(io::Error::other(error)),
            _ => Ok(socket),
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // A closed engine has none any more.
        let _ = self.engine.set_owner_note("");
        self.serving.abort();
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            // It may be gone already.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The directory of control sockets, which belongs to this user alone.
fn directory() -> io::Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let shared = PathBuf::from("/run/oncekey");
    if owned(&shared, uid).is_ok() || made(&shared).is_ok_and(|()| owned(&shared, uid).is_ok()) {
        return Ok(shared);
    }
    let own = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(runtime) if Path::new(&runtime).is_dir() => PathBuf::from(runtime).join("oncekey"),
        _ => std::env::temp_dir().join(format!("oncekey-{uid}")),
    };
    match made(&own) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => owned(&own, uid)?,
    }
    Ok(own)
}

fn made(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(directory)
}

/// Another user's directory of this name would let that user see, or be, the socket.
fn owned(directory: &Path, uid: u32) -> io::Result<()> {
    let metadata = fs::symlink_metadata(directory)?;
    if !metadata.is_dir() || metadata.uid() != uid || metadata.mode() & 0o022 != 0 {
        let message = format!("{} is not a directory of this user alone", directory.display());
        return Err(io::Error::other(message));
    }
    Ok(())
}

/// The user of the process at the other end.
#[derive(Clone, Copy)]
struct Peer(Option<u32>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok().map(|credentials| credentials.uid()))
    }
}

/// This user and root are operators; no other user is answered.
async fn peer_only(
    ConnectInfo(Peer(uid)): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let own = rustix::process::geteuid().as_raw();
    match uid {
        Some(uid) if uid == own || uid == 0 => {
            let mut caller = Caller::operator(format!("uid {uid}"));
            caller.peer = Some("control socket".to_owned());
            gate::admit(caller, request, next).await
        }
        _ => {
            let message = "the control socket is for the user that runs this process, and for root";
            Refusal::forbidden("forbidden", message).into_response()
        }
    }
}
