//! The control socket of an engine, through which operators reach the process that holds a store.

#[cfg(all(unix, feature = "control-socket"))]
pub(super) use offered::ControlSocket;
#[cfg(not(all(unix, feature = "control-socket")))]
pub(super) use refused::ControlSocket;

#[cfg(all(unix, feature = "control-socket"))]
mod offered {
    use std::io;
    use std::mem;
    use std::path::{Path, PathBuf};
    use std::sync::mpsc;
    use std::thread::JoinHandle;

    use oncekey::Engine;
    use oncekey_http::Admin;
    use parking_lot::Mutex;
    use tokio::sync::oneshot;

    use crate::abi::control_options::*;
    use crate::abi::status::{ONCEKEY_CLOSED, ONCEKEY_PANIC};
    use crate::abi::types::Slice;
    use crate::boundary::convert::Caller;
    use crate::boundary::failure::Failure;
    use crate::boundary::{descriptors, signals};

    const KNOWN_FLAGS: u32 = ONCEKEY_CONTROL_READ_ONLY | ONCEKEY_CONTROL_SHOW_RESPONSES;

    /// The largest number of requests that read files, or change something, at once.
    const WORKERS: usize = 4;

    /// The control socket of an engine, if it offers one.
    #[derive(Default)]
    pub(crate) struct ControlSocket(Mutex<State>);

    #[derive(Default)]
    enum State {
        #[default]
        None,
        Offered(Server),
        /// The engine is closed or is being closed.
        Over,
    }

    impl ControlSocket {
        /// Offers the socket. It is bound when this returns.
        pub(crate) fn offer(
            &self,
            engine: Engine,
            options: &ControlOptions,
            caller: &Caller,
        ) -> Result<(), Failure> {
            let settings = Settings::new(&engine, options, caller)?;
            // ORDER: hold the lock while the server starts. A close that comes meanwhile then finds the
            // server and ends it.
            let mut state = self.0.lock();
            match *state {
                State::None => {}
                State::Offered(_) => {
                    return Err(Failure::invalid("the engine offers a control socket already"));
                }
                State::Over => return Err(Failure::new(ONCEKEY_CLOSED, "closed")),
            }
            *state = State::Offered(Server::start(settings)?);
            Ok(())
        }

        /// Ends the socket for good. Dropping the returned server waits for its thread.
        pub(crate) fn end(&self) -> Option<Server> {
            match mem::replace(&mut *self.0.lock(), State::Over) {
                State::Offered(mut server) => {
                    server.stop = None;
                    Some(server)
                }
                State::None | State::Over => None,
            }
        }
    }

    /// A thread that answers on the socket. Dropping it ends the thread and waits for it.
    pub(crate) struct Server {
        /// The thread ends when this is dropped.
        stop: Option<oneshot::Sender<()>>,
        thread: Option<JoinHandle<()>>,
    }

    impl Server {
        fn start(settings: Settings) -> Result<Self, Failure> {
            descriptors::fill_standard_streams()?;
            let (stop, stopped) = oneshot::channel();
            let (tell, told) = mpsc::channel();
            let thread =
                signals::spawn("oncekey-control", move || serve(settings, stopped, &tell))?;
            let server = Self { stop: Some(stop), thread: Some(thread) };
            match told.recv() {
                Ok(bound) => bound.map(|()| server),
                Err(mpsc::RecvError) => {
                    Err(Failure::new(ONCEKEY_PANIC, "the thread of the control socket panicked"))
                }
            }
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.stop = None;
            if let Some(thread) = self.thread.take() {
                // An error means that the thread panicked; the panic was contained.
                let _ = thread.join();
            }
        }
    }

    /// Binds the socket, reports whether that succeeded, and answers until the sender of `stopped` is
    /// dropped.
    fn serve(
        settings: Settings,
        stopped: oneshot::Receiver<()>,
        tell: &mpsc::Sender<Result<(), Failure>>,
    ) {
        let path = settings.path.clone();
        let failed = |error: io::Error| match error.downcast::<oncekey::Error>() {
            Ok(error) => error.into(),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Failure::invalid(format!("the control socket {}: {error}", path.display()))
            }
            Err(error) => Failure::io(format!("the control socket {}: {error}", path.display())),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(WORKERS)
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(tell.send(Err(failed(error)))),
        };
        let inside = runtime.enter();
        let bound = settings.admin.control_socket(&settings.path);
        drop(inside);
        let socket = match bound {
            Ok(socket) => socket,
            Err(error) => return drop(tell.send(Err(failed(error)))),
        };
        if tell.send(Ok(())).is_ok() {
            // The sender never sends; it is only dropped.
            let _ = runtime.block_on(stopped);
        }
        drop(socket);
        // Waits for the work that operators have requested.
        drop(runtime);
    }

    /// The router to serve, and the path to serve it on.
    struct Settings {
        admin: Admin,
        path: PathBuf,
    }

    impl Settings {
        fn new(
            engine: &Engine,
            options: &ControlOptions,
            caller: &Caller,
        ) -> Result<Self, Failure> {
            // Without `..`, so that an option that is not handed on does not compile.
            let ControlOptions { size: _, flags, path, backups, audit_log } = *options;
            if flags & !KNOWN_FLAGS != 0 {
                return Err(Failure::invalid(
                    "the options have flags that this library does not know",
                ));
            }
            let given = |slice: Slice| match slice.len {
                0 => Ok(None),
                _ => caller.path(slice).map(|path| Some(path.to_owned())),
            };
            let mut admin = Admin::without_layer(engine.clone())
                .read_only(flags & ONCEKEY_CONTROL_READ_ONLY != 0)
                .show_responses(flags & ONCEKEY_CONTROL_SHOW_RESPONSES != 0);
            if let Some(directory) = engine.directory() {
                admin = admin.about("store", whole(directory).display().to_string());
            }
            if let Some(directory) = given(backups)? {
                admin = admin.backups(directory);
            }
            if let Some(file) = given(audit_log)? {
                admin = admin.audit_log(file);
            }
            let path = match (given(path)?, engine.directory()) {
                (Some(path), _) => whole(&path),
                (None, Some(store)) => {
                    oncekey_http::ControlSocket::default_path(store).map_err(|error| {
                        Failure::io(format!("a place for the control socket: {error}"))
                    })?
                }
                (None, None) => {
                    let message = "a store in a database has no control socket that the command line finds \
                                   by itself: set the path of the options";
                    return Err(Failure::invalid(message));
                }
            };
            Ok(Self { admin, path })
        }
    }

    /// The absolute path: other processes may run in another directory.
    fn whole(path: &Path) -> PathBuf {
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
    }
}

#[cfg(not(all(unix, feature = "control-socket")))]
mod refused {
    use crate::abi::control_options::ControlOptions;
    use crate::abi::status::ONCEKEY_UNSUPPORTED;
    use crate::boundary::convert::Caller;
    use crate::boundary::failure::Failure;

    /// This library has no control sockets.
    #[derive(Default)]
    pub(crate) struct ControlSocket;

    impl ControlSocket {
        /// Refuses, and explains how to build a library with control sockets.
        pub(crate) fn offer(
            &self,
            _: oncekey::Engine,
            _: &ControlOptions,
            _: &Caller,
        ) -> Result<(), Failure> {
            let context = "this library was built without control sockets: build it with the feature \
                           control-socket, which engine-ffi/install.sh takes by default";
            Err(Failure::new(ONCEKEY_UNSUPPORTED, context))
        }

        pub(crate) fn end(&self) -> Option<std::convert::Infallible> {
            None
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_library_without_the_feature_says_how_to_build_one_with_it() {
            let dir = tempfile::tempdir().unwrap();
            let engine = oncekey::Engine::open(dir.path().join("store")).unwrap();
            // SAFETY: no slice is set.
            let (options, caller) =
                unsafe { (std::mem::zeroed::<ControlOptions>(), Caller::new()) };
            let refused = ControlSocket.offer(engine, &options, &caller).unwrap_err();
            assert_eq!(refused.status(), ONCEKEY_UNSUPPORTED);
            assert!(
                refused.message().contains("the feature control-socket"),
                "{}",
                refused.message()
            );
        }
    }
}
