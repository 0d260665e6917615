//! The load: one thread that keeps a number of connections busy, and costs little.
//!
//! Each connection is plain HTTP/1.1 with keep-alive and has one request under way. A request is a prepared
//! sequence of bytes in which only the key changes. No allocation is made for a request or an answer. Every answer is
//! compared with the one that is due.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use oncekey_benches::Result;
use oncekey_benches::drive::histogram;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use super::REPLAYED;
use super::order::REQUEST;
use crate::work::{Id, Ids, mix};

/// How long an answer may take before the run fails.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };
/// Bytes of an answer: head and body.
const ANSWER: usize = 4096;

/// Which keys are sent.
#[derive(Clone, Copy, Debug)]
pub enum Keys<'a> {
    /// None.
    Absent,
    /// A new one with each request.
    Fresh(&'a Ids),
    /// Each of these once.
    Once(&'a [Id]),
    /// One of these, at random.
    Among(&'a [Id]),
}

/// When requests are sent no more.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After that long.
    Elapsed(Duration),
    /// After that many.
    Sent(usize),
}

/// What was answered, and how fast.
#[derive(Debug)]
pub struct Answered {
    /// From the first request until the last answer.
    pub elapsed: Duration,
    /// In nanoseconds, from the request to its answer.
    pub latencies: Histogram<u64>,
}

/// Connections to one server.
#[derive(Debug)]
pub struct Client {
    epoll: OwnedFd,
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    sent: Instant,
    answer: Box<[u8; ANSWER]>,
    filled: usize,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Those of the sockets.
    pub fn connect(server: SocketAddr, connections: usize) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let connect = |index| -> Result<_> {
            let socket = TcpStream::connect(server)?;
            socket.set_nodelay(true)?;
            let event = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, &socket, event, epoll::EventFlags::IN)?;
            let answer = Box::new([0; ANSWER]);
            Ok(Connection { socket, sent: Instant::now(), answer, filled: 0 })
        };
        let connections = (0..connections).map(connect).collect::<Result<_>>()?;
        Ok(Self { epoll, connections })
    }

    /// Sends requests and compares each answer with `body`, which must come with the marker of a replay if
    /// `replayed`, and without it if not.
    ///
    /// # Errors
    /// Those of the sockets; another answer; none in half a minute.
    pub fn load(
        &mut self,
        keys: Keys<'_>,
        until: Until,
        body: &[u8],
        replayed: bool,
    ) -> Result<Answered> {
        let mut latencies = histogram()?;
        let mut requests = Requests::new(keys, until);
        let mut under_way = 0;
        for connection in &mut self.connections {
            under_way += usize::from(connection.send(&mut requests)?);
        }
        let mut events = Vec::with_capacity(self.connections.len());
        let mut last = requests.start;
        while under_way > 0 {
            if epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&PATIENCE))? == 0 {
                return Err("no answer in half a minute".into());
            }
            for event in events.drain(..) {
                let connection = &mut self.connections[event.data.u64() as usize];
                if !connection.receive(body, replayed)? {
                    continue;
                }
                last = Instant::now();
                latencies.saturating_record((last - connection.sent).as_nanos() as u64);
                under_way -= usize::from(!connection.send(&mut requests)?);
            }
        }
        Ok(Answered { elapsed: last - requests.start, latencies })
    }
}

/// The bytes of requests.
struct Requests<'a> {
    keys: Keys<'a>,
    until: Until,
    start: Instant,
    sent: usize,
    random: u64,
    bytes: Vec<u8>,
    key_at: usize,
}

impl<'a> Requests<'a> {
    fn new(keys: Keys<'a>, until: Until) -> Self {
        let mut bytes =
            b"POST /orders HTTP/1.1\r\nhost: localhost\r\nuser-agent: compare\r\naccept: */*\r\n\
            content-type: application/json\r\n"
                .to_vec();
        let mut key_at = 0;
        if !matches!(keys, Keys::Absent) {
            bytes.extend_from_slice(b"idempotency-key: ");
            key_at = bytes.len();
            bytes.extend_from_slice(&[b'-'; Id::LEN]);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(
            format!("content-length: {}\r\n\r\n{REQUEST}", REQUEST.len()).as_bytes(),
        );
        let start = Instant::now();
        // Another order of keys in each slice.
        let random = start.elapsed().as_nanos() as u64 ^ std::process::id() as u64;
        Self { keys, until, start, sent: 0, random, bytes, key_at }
    }

    /// The next one, unless it is time to stop.
    fn next(&mut self, now: Instant) -> Option<&[u8]> {
        let due = match self.until {
            Until::Elapsed(length) => now - self.start >= length,
            Until::Sent(count) => self.sent >= count,
        };
        if due {
            return None;
        }
        let key = match self.keys {
            Keys::Absent => None,
            Keys::Fresh(ids) => Some(ids.fresh()),
            Keys::Once(ids) => Some(ids[self.sent]),
            Keys::Among(ids) => {
                self.random = mix(self.random);
                Some(ids[(self.random % ids.len() as u64) as usize])
            }
        };
        if let Some(key) = key {
            self.bytes[self.key_at..self.key_at + Id::LEN].copy_from_slice(key.as_bytes());
        }
        self.sent += 1;
        Some(&self.bytes)
    }
}

impl Connection {
    /// Sends the next request; whether there was one.
    fn send(&mut self, requests: &mut Requests<'_>) -> Result<bool> {
        self.sent = Instant::now();
        self.filled = 0;
        match requests.next(self.sent) {
            // It fits into the buffer of the socket, which is empty: this does not block.
            Some(request) => self.socket.write_all(request).map(|()| true).map_err(Into::into),
            None => Ok(false),
        }
    }

    /// Reads what there is; whether the answer is whole.
    fn receive(&mut self, body: &[u8], replayed: bool) -> Result<bool> {
        let read = self.socket.read(&mut self.answer[self.filled..])?;
        self.filled += read;
        let answer = &self.answer[..self.filled];
        let wrong = || {
            let text = String::from_utf8_lossy(&answer[..answer.len().min(600)]);
            let due = if replayed { "a replay" } else { "a first answer" };
            format!("a wrong answer, where {due} was due:\n{text}")
        };
        if read == 0 {
            return Err(wrong().into());
        }
        let Some(end) = find(answer, b"\r\n\r\n") else {
            return if self.filled < ANSWER { Ok(false) } else { Err(wrong().into()) };
        };
        let (head, rest) = answer.split_at(end + 4);
        if !head.starts_with(b"HTTP/1.1 200 ")
            || find(head, REPLAYED.as_bytes()).is_some() != replayed
            || !body.starts_with(rest)
        {
            return Err(wrong().into());
        }
        Ok(rest.len() == body.len())
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::net::TcpListener;

    use super::*;

    /// Lets a server of canned answers meet two requests on one connection.
    fn against(answers: [Vec<&'static [u8]>; 2], replayed: bool) -> Result<Answered> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let server = std::thread::spawn(move || -> std::io::Result<()> {
            let mut input = std::io::BufReader::new(listener.accept()?.0);
            for pieces in answers {
                let mut line = String::new();
                while line != "\r\n" {
                    line.clear();
                    input.read_line(&mut line)?;
                }
                input.read_exact(&mut [0; REQUEST.len()])?;
                for piece in pieces {
                    input.get_mut().write_all(piece)?;
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            Ok(())
        });
        let ids = Ids::new();
        let answered =
            Client::connect(address, 1)?.load(Keys::Fresh(&ids), Until::Sent(2), b"body", replayed);
        drop(server.join());
        answered
    }

    const FIRST: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";
    const REPLAY: &[u8] =
        b"HTTP/1.1 200 OK\r\nidempotent-replayed: true\r\ncontent-length: 4\r\n\r\nbody";

    #[test]
    fn answers_are_counted_however_they_are_cut() {
        let pieces = vec![&FIRST[..9], &FIRST[9..39], &FIRST[39..]];
        let answered = against([vec![FIRST], pieces], false).unwrap();
        assert_eq!(answered.latencies.len(), 2);
        assert_eq!(against([vec![REPLAY], vec![REPLAY]], true).unwrap().latencies.len(), 2);
    }

    #[test]
    fn a_wrong_answer_fails_the_load() {
        let error = |answer: &'static [u8], replayed| {
            let right = if replayed { REPLAY } else { FIRST };
            against([vec![right], vec![answer]], replayed).unwrap_err().to_string()
        };
        assert!(error(FIRST, true).contains("where a replay was due"));
        assert!(error(REPLAY, false).contains("where a first answer was due"));
        error(b"HTTP/1.1 409 Conflict\r\ncontent-length: 4\r\n\r\nbody", false);
        error(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbodx", false);
        error(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nbody!", false);
        error(b"HTTP/1.1 200 OK\r\n", false);
    }
}
