//! Who asks gets an answer: metrics, processes, goroutines. Read-only.
//!
//! On a loopback address for everybody who is on the machine; elsewhere by TLS, for who has the token.

mod answers;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;

use super::config::Http;
use super::state::Shared;

/// Why nobody can ask.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The address cannot be had.
    #[error(
        "cannot listen on {address}: is another agent running? `[http] listen` in the configuration chooses another"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file for TLS or the token.
    #[error("cannot use {path}, which [http] {key} names: {why}")]
    File {
        /// The key.
        key: &'static str,
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// An answer.
type Answer = Response<Full<Bytes>>;

/// Connections at the same time.
const CONNECTIONS: usize = 64;
/// For a request's head, and for TLS to begin.
const HEAD: Duration = Duration::from_secs(10);
/// For a whole connection that does nothing.
const IDLE: Duration = Duration::from_secs(120);

/// Listens.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    access: Rc<Access>,
}

/// Who may ask.
struct Access {
    token: Option<Vec<u8>>,
    /// Only on the machine itself: a browser there must not be sent to us by another site's name.
    loopback: bool,
}

impl Listener {
    /// Listens where the configuration says.
    ///
    /// # Errors
    ///
    /// If the address is taken, or the files for TLS and the token cannot be used.
    pub async fn bind(config: &Http) -> Result<Self, HttpError> {
        let address = config.listen;
        let tls = tls::acceptor(config)?;
        let token = config.token_file.as_deref().map(token).transpose()?;
        let bind_error = |source| HttpError::Bind { address, source };
        let socket = TcpListener::bind(address).await.map_err(bind_error)?;
        // Of port 0 the kernel has chosen one.
        let address = socket.local_addr().map_err(bind_error)?;
        Ok(Self { socket, address, tls, access: Rc::new(Access { token, loopback: address.ip().is_loopback() }) })
    }

    /// Where.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers from now on.
    pub fn serve(self, shared: &Shared) {
        let shared = Rc::clone(shared);
        spawn_local(async move {
            let permits = Rc::new(Semaphore::new(CONNECTIONS));
            loop {
                let Ok(permit) = Rc::clone(&permits).acquire_owned_rc().await else { return };
                let stream = match self.socket.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of descriptors, as a rule: some will be free soon.
                        log::warn!("a connection could not be taken: {error}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let (shared, access, tls) = (Rc::clone(&shared), Rc::clone(&self.access), self.tls.clone());
                spawn_local(async move {
                    let _permit = permit;
                    if let Err(error) = tokio::time::timeout(IDLE, connection(stream, tls, shared, access)).await {
                        log::debug!("a connection was closed for doing nothing: {error}");
                    }
                });
            }
        });
    }
}

/// A permit that a task can keep.
struct Permit(Rc<Semaphore>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

trait AcquireRc {
    async fn acquire_owned_rc(self) -> Result<Permit, tokio::sync::AcquireError>;
}

impl AcquireRc for Rc<Semaphore> {
    async fn acquire_owned_rc(self) -> Result<Permit, tokio::sync::AcquireError> {
        self.acquire().await?.forget();
        Ok(Permit(self))
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Shared, access: Rc<Access>) {
    let service = service_fn(move |request| {
        let (shared, access) = (Rc::clone(&shared), Rc::clone(&access));
        async move { Ok::<_, Infallible>(answer(request, &shared, &access).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(16 << 10);
    let done = match tls {
        None => server.serve_connection(TokioIo::new(stream), service).await,
        Some(tls) => match tokio::time::timeout(HEAD, tls.accept(stream)).await {
            Ok(Ok(stream)) => server.serve_connection(TokioIo::new(stream), service).await,
            Ok(Err(error)) => {
                log::debug!("no TLS: {error}");
                return;
            }
            Err(_) => return,
        },
    };
    if let Err(error) = done {
        log::debug!("a connection ended: {error}");
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared, access: &Access) -> Answer {
    if let Some(refusal) = access.refuses(&request) {
        return refusal;
    }
    let begin = std::time::Instant::now();
    let answer = answers::answer(&request, shared).await;
    log::debug!("{} {}: {} in {:?}", request.method(), request.uri(), answer.status(), begin.elapsed());
    answer
}

impl Access {
    fn refuses<B>(&self, request: &Request<B>) -> Option<Answer> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET: nothing can be changed from here\n");
            answer.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return Some(answer);
        }
        if let Some(token) = &self.token {
            let given = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
            let given = given.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
            if !same(given, token) {
                return Some(text(StatusCode::UNAUTHORIZED, "this needs `Authorization: Bearer TOKEN`\n"));
            }
        } else if self.loopback {
            let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
            if !is_local(host) {
                return Some(text(StatusCode::FORBIDDEN, "ask for localhost or a loopback address\n"));
            }
        }
        None
    }
}

/// Whether a `Host` header names this machine by a name that nobody else can give it.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok()
}

/// In a time that does not tell how much of it was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}

fn token(path: &std::path::Path) -> Result<Vec<u8>, HttpError> {
    let wrong = |why: String| HttpError::File { key: "token_file", path: path.display().to_string(), why };
    let token = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    match token.trim() {
        "" => Err(wrong("it is empty".to_owned())),
        token => Ok(token.as_bytes().to_vec()),
    }
}

fn body(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(bytes.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    answer
}

fn text(status: StatusCode, text: impl Into<String>) -> Answer {
    body(status, "text/plain; charset=utf-8", text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(access: &Access, headers: &[(&str, &str)]) -> Option<StatusCode> {
        let mut request = Request::get("/metrics");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        access.refuses(&request.body(()).expect("a request")).map(|answer| answer.status())
    }

    #[test]
    fn without_the_token_nothing_is_told() {
        let access = Access { token: Some(b"secret".to_vec()), loopback: false };
        assert_eq!(get(&access, &[]), Some(StatusCode::UNAUTHORIZED));
        assert_eq!(get(&access, &[("authorization", "Bearer secre")]), Some(StatusCode::UNAUTHORIZED));
        assert_eq!(get(&access, &[("authorization", "Bearer wrongs")]), Some(StatusCode::UNAUTHORIZED));
        assert_eq!(get(&access, &[("authorization", "Bearer secret")]), None);
    }

    #[test]
    fn a_foreign_name_for_this_machine_is_refused() {
        let access = Access { token: None, loopback: true };
        for host in ["localhost:9467", "127.0.0.1:9467", "[::1]:9467", "localhost"] {
            assert_eq!(get(&access, &[("host", host)]), None, "{host}");
        }
        assert_eq!(get(&access, &[("host", "evil.example:9467")]), Some(StatusCode::FORBIDDEN));
    }

    #[test]
    fn nothing_can_be_changed() {
        let access = Access { token: None, loopback: true };
        let request = Request::post("/metrics").body(()).expect("a request");
        assert_eq!(access.refuses(&request).map(|answer| answer.status()), Some(StatusCode::METHOD_NOT_ALLOWED));
    }
}
