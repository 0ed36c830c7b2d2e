//! The client's end of the control socket.
//!
//! A connection a request: the daemon is on this machine, and nothing is left half-open when a command is interrupted.
//! What the daemon answers is bounded all the same, since a state folder may be anybody's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::api::{Event, Line};
use super::problem::chain;
use super::{Code, Problem, SocketAddress};

/// Commands the daemon whose state folder is given.
#[derive(Clone, Debug)]
pub struct Client {
    state: PathBuf,
}

/// Events of a long operation, as they happen.
#[derive(Debug)]
pub struct Events {
    what: String,
    body: Incoming,
    buffer: BytesMut,
    /// Up to where the buffer holds no line end.
    searched: usize,
}

impl Client {
    /// A client of the daemon with this state folder. Connects when the first request is made.
    pub fn new(state: &Path) -> Self {
        Client { state: state.to_owned() }
    }

    /// Asks for something.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        self.call(Method::GET, path, &()).await
    }

    /// Has something removed.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        self.call(Method::DELETE, path, &()).await
    }

    /// Has something done that ends at once.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Problem> {
        self.call(Method::POST, path, body).await
    }

    /// Has something done that takes its time.
    pub async fn stream(&self, path: &str, body: &impl Serialize) -> Result<Events, Problem> {
        let response = self.send(Method::POST, path, body).await?;
        let what = format!("daemon of {}", self.state.display());
        Ok(Events { what, body: response.into_body(), buffer: BytesMut::new(), searched: 0 })
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: &impl Serialize) -> Result<T, Problem> {
        let response = self.send(method, path, body).await?;
        let body = self.collect(response).await?;
        serde_json::from_slice(&body).map_err(|error| self.misunderstood(&error))
    }

    /// The answer, if it is no problem.
    async fn send(&self, method: Method, path: &str, body: &impl Serialize) -> Result<Response<Incoming>, Problem> {
        let mut sender = self.connect().await?;
        let body = serde_json::to_vec(body).map_err(|error| self.misunderstood(&error))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "drover")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.misunderstood(&error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let body = self.collect(response).await?;
        Err(serde_json::from_slice(&body).unwrap_or_else(|_| {
            let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            Problem::failed(self.what(), format!("it answered {status} {text}"))
        }))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Problem> {
        let socket = super::socket_path(&self.state);
        let unreachable = |why: String| {
            Problem::new(Code::DaemonUnreachable, self.what(), why).todo(format!(
                "start it with `drover daemon --state {0}`, or name another one with --state or DROVER_STATE",
                self.state.display()
            ))
        };
        let address = SocketAddress::new(&self.state, "agent.sock")
            .map_err(|error| unreachable(format!("can't open {}: {error}", self.state.display())))?;
        let stream = match tokio::time::timeout(CONNECT_PATIENCE, UnixStream::connect(address.path())).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(reason(&socket, &error))),
            Err(_) => return Err(unreachable(format!("{} does not answer", socket.display()))),
        };
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // Ends with the connection; what it fails with is seen by the request, too.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, Problem> {
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| Problem::failed(self.what(), error))
    }

    fn what(&self) -> String {
        format!("daemon of {}", self.state.display())
    }

    fn broken(&self, error: &dyn std::error::Error) -> Problem {
        Problem::new(Code::DaemonUnreachable, self.what(), format!("it hung up: {}", chain(error)))
            .todo("see its log; `drover status` tells whether it is back")
    }

    fn misunderstood(&self, error: &dyn std::error::Error) -> Problem {
        Problem::failed(self.what(), format!("it can't be understood: {error}"))
            .todo("are daemon and command of the same version? (`drover --version`, `drover status`)")
    }
}

impl Events {
    /// The next event; `None` when the daemon has said all. [`Event::Error`] comes as the error that it is.
    pub async fn next(&mut self) -> Result<Option<Event>, Problem> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at + 1);
                self.searched = 0;
                let line: Line = serde_json::from_slice(&line).map_err(|error| {
                    Problem::failed(&self.what, format!("an event can't be understood: {error}"))
                        .todo("are daemon and command of the same version? (`drover --version`, `drover status`)")
                })?;
                return match line.event {
                    Event::Error(problem) => Err(problem),
                    event => Ok(Some(event)),
                };
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LONGEST_ANSWER {
                return Err(Problem::failed(&self.what, "an event is longer than any event is"));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    let why = format!("it ended in the middle of its work: {}", chain(&error));
                    return Err(Problem::new(Code::DaemonUnreachable, &self.what, why)
                        .todo("see its log; nothing that it held is lost, run the command again when it is back"));
                }
            }
        }
    }

    /// Reads events until the daemon has said all, showing each to `see`, and gives the last.
    pub async fn last(&mut self, mut see: impl FnMut(&Event)) -> Result<Event, Problem> {
        let mut last = None;
        while let Some(event) = self.next().await? {
            see(&event);
            last = Some(event);
        }
        last.ok_or_else(|| {
            Problem::new(Code::DaemonUnreachable, &self.what, "it ended before it said how it went")
                .todo("see its log; nothing that it held is lost, run the command again when it is back")
        })
    }
}

fn reason(socket: &Path, error: &std::io::Error) -> String {
    let socket = socket.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no {socket}, so it does not run"),
        std::io::ErrorKind::ConnectionRefused => format!("nobody listens on {socket}, so it does not run"),
        std::io::ErrorKind::PermissionDenied => {
            format!("{socket} is not yours to use: that takes the daemon's user, its group, or root")
        }
        _ => format!("can't connect to {socket}: {error}"),
    }
}

/// The daemon accepts at once or has a full queue of a thousand others.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// A thousand masters of a kilobyte each, sixteen times over.
const LONGEST_ANSWER: usize = 16 << 20;
