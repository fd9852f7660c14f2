//! A small HTTP server that also misbehaves.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What a request is answered with.
pub enum Reply {
    /// A file.
    File(Vec<u8>),
    /// This status and no file.
    Status(u16),
    /// Another place.
    Redirect(String),
    /// Fewer bytes than are told.
    CutShort(Vec<u8>),
    /// More bytes are told than this; then nothing is sent any more, and the connection stays open.
    Stall(Vec<u8>),
    /// Nothing at all, while the connection stays open.
    Silence,
    /// Only this length is told.
    Length(u64),
    /// The file, when the channel is closed.
    After(Receiver<()>, Vec<u8>),
    /// The bytes again and again, until nobody takes them.
    Endless(Vec<u8>),
}

/// A server on a port of its own, until it is dropped.
pub struct Server {
    address: std::net::SocketAddr,
    is_over: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<String>>>,
    listener: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers each request for a path by `reply`.
    pub fn start(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let is_over = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (over, log) = (Arc::clone(&is_over), Arc::clone(&asked));
        let reply = Arc::new(reply);
        let listener = std::thread::spawn(move || {
            // Connections that stay open do so until the server goes.
            let open = Arc::new(Mutex::new(Vec::new()));
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (log, reply, open) = (Arc::clone(&log), Arc::clone(&reply), Arc::clone(&open));
                std::thread::spawn(move || {
                    let Some(path) = request(&stream) else { return };
                    log.lock().expect("a log").push(path.clone());
                    // Whoever asked may be gone.
                    if answer(&stream, reply(&path)).unwrap_or(false) {
                        open.lock().expect("a list").push(stream);
                    }
                });
            }
        });
        Self { address, is_over, asked, listener: Some(listener) }
    }

    /// The URL of `path`, which begins without a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// The paths that were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("a log").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
        if let Some(listener) = self.listener.take() {
            listener.join().expect("the server ends");
        }
    }
}

/// The path of a request, without the slash.
fn request(stream: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    while !lines.next()?.ok()?.is_empty() {}
    first.split(' ').nth(1)?.strip_prefix('/').map(str::to_owned)
}

/// Answers, and says whether the connection is to stay open.
fn answer(mut stream: &TcpStream, reply: Reply) -> std::io::Result<bool> {
    let mut head = |status: &str, rest: &str| {
        stream.write_all(format!("HTTP/1.1 {status}\r\nConnection: close\r\n{rest}\r\n").as_bytes())
    };
    let length = |n_bytes: usize| format!("Content-Length: {n_bytes}\r\n");
    match reply {
        Reply::File(bytes) => {
            head("200 OK", &length(bytes.len()))?;
            stream.write_all(&bytes)?;
        }
        Reply::After(until, bytes) => {
            // The other end is dropped, not used.
            let _ = until.recv();
            head("200 OK", &length(bytes.len()))?;
            stream.write_all(&bytes)?;
        }
        Reply::Status(status) => head(&format!("{status} Told"), &length(0))?,
        Reply::Redirect(to) => head("302 Found", &format!("Location: {to}\r\n{}", length(0)))?,
        Reply::CutShort(bytes) => {
            head("200 OK", &length(bytes.len() + 1000))?;
            stream.write_all(&bytes)?;
        }
        Reply::Stall(bytes) => {
            head("200 OK", &length(bytes.len() + 1000))?;
            stream.write_all(&bytes)?;
            return Ok(true);
        }
        Reply::Silence => return Ok(true),
        Reply::Length(n_bytes) => {
            head("200 OK", &format!("Content-Length: {n_bytes}\r\n"))?;
            return Ok(true);
        }
        Reply::Endless(bytes) => {
            head("200 OK", "")?;
            loop {
                stream.write_all(&bytes)?;
            }
        }
    }
    Ok(false)
}
