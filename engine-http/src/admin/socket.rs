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

/// A control socket that is served until this value is dropped. The drop removes the file and the note that
/// names it.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    /// The engine whose note names the path.
    engine: Engine,
    /// Identifies the file that was bound: another process may have replaced it since.
    inode: u64,
    serving: JoinHandle<()>,
}

impl ControlSocket {
    /// The path where the owner of a store listens unless told otherwise. The name is derived from the path
    /// of the store. The directory is `/run/oncekey` where that can be used, else `$XDG_RUNTIME_DIR/oncekey`,
    /// else `oncekey-UID` in the directory for temporary files. A missing directory is made with mode 0700.
    /// `store` is the path of a directory, or another text that identifies the store.
    ///
    /// # Errors
    /// When the directory cannot be made, or others than this user own it or may write to it.
    pub fn default_path(store: impl AsRef<Path>) -> io::Result<PathBuf> {
        let store = store.as_ref();
        // The store may not exist yet. Its canonical parent gives one name for every way to write the path.
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

    /// The text of the engine's owner note with which the command line finds this process: `pid 4242`, and
    /// `control unix:/run/oncekey/3f1c.sock`. [`Admin::control_socket`](crate::Admin::control_socket) writes
    /// it.
    pub fn note(path: &Path) -> String {
        format!("pid {}\ncontrol unix:{}\n", std::process::id(), path.display())
    }

    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Binds `path`, serves `router` there on the tokio runtime of the caller, and writes the owner note.
    pub(crate) fn serve(path: PathBuf, router: Router, engine: Engine) -> io::Result<Self> {
        let is_socket = fs::symlink_metadata(&path).is_ok_and(|file| file.file_type().is_socket());
        if is_socket {
            // A killed process left the socket behind. The holder of the store may replace it.
            fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let inode = fs::symlink_metadata(&path)?.ino();
        // Bound as it was given, since a long path cannot be bound. Other processes need the whole path.
        let path = super::absolute(path);
        let router = router.layer(from_fn(peer_only));
        let service = router.into_make_service_with_connect_info::<Peer>();
        let serving = tokio::spawn(async move {
            // The server ends only when its task is aborted.
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
        // A closed engine has no note any more.
        let _ = self.engine.set_owner_note("");
        self.serving.abort();
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            // The file may be gone already.
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

/// Fails unless `directory` belongs to this user alone. In a directory of another user, that user could see
/// or replace the socket.
fn owned(directory: &Path, uid: u32) -> io::Result<()> {
    let metadata = fs::symlink_metadata(directory)?;
    if !metadata.is_dir() || metadata.uid() != uid || metadata.mode() & 0o022 != 0 {
        let message = format!("{} is not a directory of this user alone", directory.display());
        return Err(io::Error::other(message));
    }
    Ok(())
}

/// The user id of the process at the other end; `None` when the system does not tell it.
#[derive(Clone, Copy)]
struct Peer(Option<u32>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok().map(|credentials| credentials.uid()))
    }
}

/// Lets this user and root in as operators, and refuses every other user with 403.
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
