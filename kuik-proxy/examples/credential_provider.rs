//! A custom credential provider: short-lived passwords from a vault, for the registries of one domain.
//!
//! The registry client asks a provider only after a registry has refused a request (401), and remembers what was
//! accepted. So a provider needs no cache of its own, and public images cost no call to the vault. It never learns where
//! a password goes: the client sends it to the registry of the repository, or to the token endpoint that this registry
//! names, and never follows a redirect with it.
//!
//! `VAULT_PASSWORD=… cargo run -p kuik-proxy --example credential_provider registry.example.com/team/app:v1`

use std::{error::Error, fmt};

use kuik_core::{
    async_trait,
    client::{RegistryClient, TransportConfig, Upstreams},
    content::{ContentSource as _, Digest, Freshness, TagOrDigest},
    credentials::{Credential, CredentialError, CredentialProvider},
    reference::{ImageReference, RepositoryName, Tag},
};

/// How passwords are read: the client of your vault.
type ReadPassword = Box<dyn Fn(&str) -> Result<String, std::io::Error> + Send + Sync>;

/// Passwords from a vault, for the registries below one domain.
struct Vault {
    /// Registries of this domain, and of no other, get a password.
    domain: String,
    read_password: ReadPassword,
}

/// Providers are printed in logs: a secret must not be.
impl fmt::Debug for Vault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Vault").field("domain", &self.domain).finish_non_exhaustive()
    }
}

#[async_trait]
impl CredentialProvider for Vault {
    /// Returns the candidates in the order in which the client tries them; none means anonymous access.
    async fn candidates(&self, repository: &RepositoryName) -> Result<Vec<Credential>, CredentialError> {
        let host = repository.registry().split(':').next().unwrap_or_default();
        let is_below =
            host.strip_suffix(&self.domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if !is_below {
            return Ok(Vec::new());
        }
        // One account for each repository, so that a leaked password opens no other.
        let password = (self.read_password)(repository.path()).map_err(|error| {
            // The client logs this and continues without a password: the image may be public.
            CredentialError::new(format!("read the password of {repository}"), Some(error.into()))
        })?;
        Ok(vec![Credential::basic("robot", password)])
    }
}

/// Returns the digest that a tag has in its registry now.
async fn digest_of(image: &str, vault: Vault, upstreams: Upstreams) -> Result<Digest, Box<dyn Error>> {
    let image = ImageReference::parse(image)?;
    let tag: Tag = image.tag_or_default().ok_or("the image has no tag")?.parse()?;
    let client = RegistryClient::of_upstreams(upstreams, vault, TransportConfig::default())?;
    let at = TagOrDigest::Tag(tag);
    Ok(client.resolve(&image.repository(), &at, Freshness::Revalidate).await?.content.digest)
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "the result of the example")]
async fn main() -> Result<(), Box<dyn Error>> {
    let image = std::env::args().nth(1).ok_or("usage: credential_provider IMAGE")?;
    let read_password: ReadPassword =
        Box::new(|_| std::env::var("VAULT_PASSWORD").map_err(std::io::Error::other));
    let vault = Vault { domain: "example.com".to_owned(), read_password };
    println!("{}", digest_of(&image, vault, Upstreams::default()).await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use kuik_testkit::{Access, SampleImage, ScriptedRegistry};

    use super::{ReadPassword, Upstreams, Vault, digest_of};

    /// A vault that records for which paths it was asked.
    fn vault(domain: &str, asked: &Arc<Mutex<Vec<String>>>) -> Vault {
        let asked = asked.clone();
        let read_password: ReadPassword = Box::new(move |path| {
            asked.lock().unwrap().push(path.to_owned());
            Ok("secret".to_owned())
        });
        Vault { domain: domain.to_owned(), read_password }
    }

    #[tokio::test]
    async fn password_is_read_after_a_refusal_and_only_for_its_domain() {
        let registry = ScriptedRegistry::start().await.unwrap();
        let image = SampleImage::small(3);
        registry.add_image("team/app", "v1", &image);
        let reference = format!("{}/team/app:v1", registry.host());
        let upstreams = || Upstreams::default().insecure(&registry.host()).unwrap();
        let asked = Arc::default();

        // A public image needs no password.
        let digest = digest_of(&reference, vault("127.0.0.1", &asked), upstreams()).await.unwrap();
        assert_eq!(digest, *image.index().digest());
        assert!(asked.lock().unwrap().is_empty());

        registry.set_access(Access::Basic { username: "robot".to_owned(), password: "secret".to_owned() });
        let digest = digest_of(&reference, vault("127.0.0.1", &asked), upstreams()).await.unwrap();
        assert_eq!(digest, *image.index().digest());
        assert_eq!(*asked.lock().unwrap(), ["team/app"]);

        // The registry is not of this domain: it gets no password, and refuses.
        let refused = digest_of(&reference, vault("example.com", &asked), upstreams()).await;
        assert!(refused.is_err());
        assert_eq!(asked.lock().unwrap().len(), 1);
    }
}
