//! One POST to a collector or a webhook, by plain HTTP or TLS.
//!
//! In: an address, headers, a body. Out: the status, if it is one of success. Follows no redirect, keeps no connection.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Sends `body`; gives the status.
///
/// # Errors
///
/// If it cannot be sent within `timeout`, or the answer is no success; then the error has its first words.
pub async fn post(
    address: &str,
    kind: &str,
    headers: &[(String, String)],
    body: Vec<u8>,
    timeout: Duration,
    ca_file: &Path,
) -> io::Result<u16> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {address} within {timeout:?}"));
    tokio::time::timeout(timeout, send(address, kind, headers, body, ca_file)).await.map_err(late)?
}

async fn send(
    address: &str,
    kind: &str,
    headers: &[(String, String)],
    body: Vec<u8>,
    ca_file: &Path,
) -> io::Result<u16> {
    let uri: Uri = address.parse().map_err(|error| invalid(format!("{address} is no address: {error}")))?;
    let host = uri.host().ok_or_else(|| invalid(format!("{address} names no host")))?;
    let tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let mut request = Request::post(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, authority)
        .header(USER_AGENT, concat!("gotracer/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, kind)
        .header(CONTENT_LENGTH, body.len());
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| invalid(error.to_string()))?;
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, port)).await?;
    if !tls {
        return exchange(stream, request).await;
    }
    let server = ServerName::try_from(name.to_owned()).map_err(|error| invalid(error.to_string()))?;
    let stream = TlsConnector::from(client(ca_file)?).connect(server, stream).await?;
    exchange(stream, request).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> io::Result<u16> {
    /// What is read of an answer.
    const ANSWER: usize = 64 << 10;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    connection.abort();
    if status.is_success() {
        return Ok(status.as_u16());
    }
    let words: String = String::from_utf8_lossy(&body).chars().take(200).collect();
    Err(io::Error::other(format!("the answer was {status}: {}", words.trim())))
}

fn client(ca_file: &Path) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let unusable = |error: String| invalid(format!("[otlp] ca_file {}: {error}", ca_file.display()));
    let certificates = CertificateDer::pem_file_iter(ca_file).map_err(|error| unusable(error.to_string()))?;
    // One that is broken does not make the others worthless.
    roots.add_parsable_certificates(certificates.flatten());
    if roots.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}
