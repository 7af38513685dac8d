//! The process's cryptography: one provider for all TLS clients.
//!
//! Must not know who connects where.

/// Makes *ring* the provider of every TLS client that does not bring its own. Call it before building an HTTP client;
/// calling it again changes nothing.
pub fn install() {
    // An error means that a provider stands already, which is all that is asked for.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
