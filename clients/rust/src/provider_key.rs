//! The key of a provider, as a lease brings it: sealed to whoever has the agent's token.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::{aead, hkdf};

use crate::proto::steward::budget::v1::HandshakeResponse;
use crate::{Error, Result};

/// Opens the provider key of a handshake that was made without a public key.
pub fn open_provider_key(lease: &HandshakeResponse, ic_token: &str) -> Result<String> {
    let parts: Vec<&str> = lease.ip_token.split(':').collect();
    let ["AES256", nonce, ciphertext, tag] = parts[..] else {
        return Err(Error::invalid("the sealed key is not AES256:<iv>:<ciphertext>:<tag>"));
    };
    opened(lease, ic_token, nonce, [ciphertext, tag])
        .ok_or_else(|| Error::invalid("the sealed key does not open with this token"))
}

fn opened(
    lease: &HandshakeResponse,
    ic_token: &str,
    nonce: &str,
    sealed: [&str; 2],
) -> Option<String> {
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, &lease.seal_salt).extract(ic_token.as_bytes());
    let info = [lease.seal_info.as_slice()];
    let key = aead::LessSafeKey::new(secret.expand(&info, &aead::AES_256_GCM).ok()?.into());
    let nonce = BASE64_STANDARD.decode(nonce).ok()?;
    let nonce = aead::Nonce::try_assume_unique_for_key(&nonce).ok()?;
    let mut text = BASE64_STANDARD.decode(sealed[0]).ok()?;
    text.extend(BASE64_STANDARD.decode(sealed[1]).ok()?);
    let plain = key.open_in_place(nonce, aead::Aad::empty(), &mut text).ok()?;
    String::from_utf8(plain.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    /// Sealed by another library than the one that opens it.
    fn lease() -> HandshakeResponse {
        HandshakeResponse {
            ip_token: "AES256:AAECAwQFBgcICQoL:5A1ziyJ0+w==:deLCQtDp5d2bHIpLpVxW5A==".into(),
            seal_salt: b"sixteen salt bytes".into(),
            seal_info: b"lease_1".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_key_opens_with_the_token_it_was_sealed_to() {
        assert_eq!(open_provider_key(&lease(), "ic_token").unwrap(), "sk-live");
    }

    #[test]
    fn a_key_does_not_open_with_another_token() {
        let error = open_provider_key(&lease(), "ic_other").unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidRequest);
        assert!(!error.message().contains("ic_other"));
    }

    #[test]
    fn what_is_not_sealed_so_is_refused() {
        let lease = HandshakeResponse { ip_token: "HPKE:AAAA".into(), ..Default::default() };
        assert_eq!(open_provider_key(&lease, "ic_token").unwrap_err().kind(), Kind::InvalidRequest);
    }
}
