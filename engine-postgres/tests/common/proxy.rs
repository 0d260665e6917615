//! A proxy that reads the protocol of PostgreSQL, and ends or silences a connection at one message of it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Who sends the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Client,
    Server,
}

/// What happens to the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The message and its connection are lost.
    Lost,
    /// The message arrives, and then the connection is lost.
    Last,
    /// The message is lost. From then on nothing passes in either direction on any connection, and neither side is
    /// told.
    Silence,
}

/// The message that meets its fate.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub from: From,
    /// 0 is the next message, or the first one of a new connection.
    pub number: usize,
    /// Counts the messages of each new connection, not of all together.
    pub of_a_new_connection: bool,
    pub fate: Fate,
}

pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    server: AtomicU16,
    plan: Mutex<Option<Plan>>,
    silent: AtomicBool,
    /// Messages that have a statement carried out.
    executions: AtomicUsize,
    /// Both ends of each connection.
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// In front of the server at this port of this machine.
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { server: server.into(), ..State::default() });
        let serving = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                serving.serve(client);
            }
        });
        Self { port, state }
    }

    /// From now on clients reach this server.
    pub fn lead_to(&self, server: u16) {
        self.state.server.store(server, Ordering::SeqCst);
        self.cut();
    }

    pub fn plan(&self, plan: Plan) {
        *self.state.plan.lock().unwrap() = Some(plan);
    }

    /// Whether the plan still waits for its message. Forgets the plan.
    pub fn still_waits(&self) -> bool {
        self.state.plan.lock().unwrap().take().is_some()
    }

    /// How many statements clients had carried out so far.
    pub fn executions(&self) -> usize {
        self.state.executions.load(Ordering::SeqCst)
    }

    /// Ends every connection, and lets new ones through.
    pub fn cut(&self) {
        let mut open = self.state.open.lock().unwrap();
        self.state.silent.store(false, Ordering::SeqCst);
        open.drain(..).for_each(|end| drop(end.shutdown(Shutdown::Both)));
    }
}

impl State {
    fn serve(self: &Arc<Self>, client: TcpStream) {
        let server = self.server.load(Ordering::SeqCst);
        let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { return };
        for end in [&client, &server] {
            end.set_nodelay(true).unwrap();
            self.open.lock().unwrap().push(end.try_clone().unwrap());
        }
        let (to_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let (asked, answered) = (self.clone(), self.clone());
        std::thread::spawn(move || asked.pump(From::Client, client, to_server));
        std::thread::spawn(move || answered.pump(From::Server, server, to_client));
    }

    /// Passes messages on until either end closes.
    fn pump(&self, from: From, mut source: TcpStream, mut sink: TcpStream) {
        let mut seen = 0;
        // The first message of a client has no type.
        let mut typed = from == From::Server;
        while let Some(message) = read(&mut source, typed) {
            // Source: PostgreSQL, "Message Formats": Execute.
            if from == From::Client && typed && message[0] == b'E' {
                self.executions.fetch_add(1, Ordering::SeqCst);
            }
            typed = true;
            let fate = self.fate(from, seen);
            seen += 1;
            if fate == Some(Fate::Silence) {
                self.silent.store(true, Ordering::SeqCst);
            }
            if self.silent.load(Ordering::SeqCst) {
                continue;
            }
            if fate != Some(Fate::Lost) && sink.write_all(&message).is_err() || fate.is_some() {
                break;
            }
        }
        for end in [source, sink] {
            let _closed = end.shutdown(Shutdown::Both);
        }
    }

    /// What the plan says of a message that is the `seen`th of its connection.
    fn fate(&self, from: From, seen: usize) -> Option<Fate> {
        let mut plan = self.plan.lock().unwrap();
        let waiting = plan.as_mut().filter(|plan| plan.from == from)?;
        let due = match waiting.of_a_new_connection {
            true => seen == waiting.number,
            false if waiting.number > 0 => {
                waiting.number -= 1;
                false
            }
            false => true,
        };
        due.then(|| plan.take().map(|plan| plan.fate))?
    }
}

fn read(source: &mut TcpStream, typed: bool) -> Option<Vec<u8>> {
    let head = usize::from(typed);
    let mut message = vec![0; head + 4];
    source.read_exact(&mut message).ok()?;
    let length = u32::from_be_bytes(message[head..].try_into().ok()?) as usize;
    message.resize(head + length, 0);
    source.read_exact(&mut message[head + 4..]).ok()?;
    Some(message)
}
