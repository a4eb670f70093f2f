//! TLS for who asks from elsewhere.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::HttpError;
use crate::agent::config::Http;

/// What takes TLS connections; `None` where none is configured.
pub(super) fn acceptor(config: &Http) -> Result<Option<TlsAcceptor>, HttpError> {
    let (Some(certificate), Some(key)) = (&config.tls_certificate, &config.tls_key) else { return Ok(None) };
    let wrong = |key: &'static str, path: &Path| {
        let path = path.display().to_string();
        move |why: String| HttpError::File { key, path, why }
    };
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| wrong("tls_certificate", certificate)(error.to_string()))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("tls_key", key)(error.to_string()))?;
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| wrong("tls_certificate", certificate)(error.to_string()))?;
    Ok(Some(TlsAcceptor::from(Arc::new(server))))
}
