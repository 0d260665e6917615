//! Bearer tokens: JSON Web Tokens (RFC 7519), verified with the same cryptography as TLS.

use std::path::Path;

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error as Unverified, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use serde_json::{Map, Value};

use crate::config;

/// The shortest secret of HS256. Source: RFC 7518, section 3.2.
const SHORTEST_SECRET: usize = 32;

/// How tokens are verified.
pub(crate) enum Tokens {
    /// With these keys.
    Keys(Vec<(DecodingKey, Validation)>),
    /// By the trusted proxy that sent the request, which has verified them already.
    Gateway,
}

impl Tokens {
    /// Reads the keys. A file holds a public key as PEM (RSA for RS256, P-256 for ES256, Ed25519 for EdDSA),
    /// or a secret of at least 32 bytes for HS256.
    ///
    /// # Errors
    /// When a file cannot be read or holds no such key.
    pub(crate) fn new(config: &config::Jwt) -> std::result::Result<Self, String> {
        if config.by_gateway {
            return Ok(Self::Gateway);
        }
        // Another thread may have installed it already: they all install the same provider.
        let _ = RING.install_default();
        let keys = config.keys.iter().map(|path| {
            let (key, algorithm) = key(path)?;
            Ok((key, validation(config, algorithm)))
        });
        keys.collect::<std::result::Result<_, String>>().map(Self::Keys)
    }

    /// The claims of a token that is valid now. `trusted` says whether a trusted proxy sent the request.
    pub(crate) fn claims(&self, token: &[u8], trusted: bool) -> Option<Map<String, Value>> {
        match self {
            Self::Gateway if trusted => jsonwebtoken::dangerous::insecure_decode_claims(token).ok(),
            Self::Gateway => None,
            Self::Keys(keys) => keys.iter().find_map(|(key, validation)| {
                jsonwebtoken::decode(token, key, validation).ok().map(|read| read.claims)
            }),
        }
    }
}

/// Reads one kind of public key.
type Form = fn(&[u8]) -> Result<DecodingKey>;

fn validation(config: &config::Jwt, algorithm: Algorithm) -> Validation {
    // A new `Validation` requires `exp`.
    let mut validation = Validation::new(algorithm);
    validation.validate_nbf = true;
    validation.validate_aud = config.audience.is_some();
    let mut required = vec!["exp"];
    if let Some(audience) = &config.audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    if let Some(issuer) = &config.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn key(path: &Path) -> std::result::Result<(DecodingKey, Algorithm), String> {
    let wrong = |error: String| format!("[jwt] key {}: {error}", path.display());
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    if !text.starts_with(b"-----BEGIN") {
        let secret = text.trim_ascii_end();
        if secret.len() < SHORTEST_SECRET {
            let message =
                format!("a secret has at least {SHORTEST_SECRET} bytes, a public key is PEM");
            return Err(wrong(message));
        }
        let key = DecodingKey::from_secret(secret).map_err(|error| wrong(error.to_string()))?;
        return Ok((key, Algorithm::HS256));
    }
    let forms = [
        (DecodingKey::from_rsa_pem as Form, Algorithm::RS256),
        (DecodingKey::from_ec_pem, Algorithm::ES256),
        (DecodingKey::from_ed_pem, Algorithm::EdDSA),
    ];
    let mut read =
        forms.iter().filter_map(|(form, algorithm)| Some((form(&text).ok()?, *algorithm)));
    read.next().ok_or_else(|| wrong("it is not a public key of RSA, P-256 or Ed25519".to_owned()))
}

static RING: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
    verifier_factory: |algorithm, key| {
        Ok(Box::new(Ring { algorithm: *algorithm, key: key.try_get_as_bytes()?.to_vec() }))
    },
    key_utils: KeyUtils::new_unimplemented(),
};

/// One key for one algorithm.
struct Ring {
    algorithm: Algorithm,
    key: Vec<u8>,
}

impl Verifier<Vec<u8>> for Ring {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Unverified> {
        let public = |algorithm: &'static dyn VerificationAlgorithm| {
            UnparsedPublicKey::new(algorithm, &self.key).verify(message, signature)
        };
        let verified = match self.algorithm {
            Algorithm::HS256 => {
                hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &self.key), message, signature)
            }
            Algorithm::RS256 => public(&RSA_PKCS1_2048_8192_SHA256),
            Algorithm::ES256 => public(&ECDSA_P256_SHA256_FIXED),
            Algorithm::EdDSA => public(&ED25519),
            _ => return Err(Unverified::new()),
        };
        verified.map_err(|_| Unverified::new())
    }
}

impl JwtVerifier for Ring {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
