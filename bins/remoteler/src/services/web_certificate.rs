//! What the proxy shows to browsers and logins: the configured certificate, or a self-signed one made once and kept.

use std::{fs, path::Path};

use anyhow::Context;
use rcgen::{CertificateParams, DnType, KeyPair};
use remoteler_core::AppAddress;
use remoteler_tunnel::TlsIdentity;

use crate::{config::ProxySettings, paths::DataDir};

/// Loads the certificate of the web API.
pub(crate) fn load(settings: &ProxySettings, data_dir: &DataDir) -> anyhow::Result<TlsIdentity> {
    if let Some(files) = &settings.certificate {
        return read(&files.cert_file, &files.key_file);
    }
    let (certificate, key) = data_dir.web_certificate();
    if !certificate.exists() || !key.exists() {
        make(settings, data_dir, &certificate, &key)?;
    }
    read(&certificate, &key)
}

fn read(certificate: &Path, key: &Path) -> anyhow::Result<TlsIdentity> {
    let text = |path: &Path| fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()));
    TlsIdentity::from_pem(text(certificate)?.as_bytes(), text(key)?.as_bytes())
        .with_context(|| format!("{} and {} cannot be used together", certificate.display(), key.display()))
}

fn make(settings: &ProxySettings, data_dir: &DataDir, certificate: &Path, key: &Path) -> anyhow::Result<()> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !settings.listen.ip().is_unspecified() {
        names.push(settings.listen.ip().to_string());
    }
    if let Some(public) = settings.public_addr.as_ref().and_then(|addr| addr.rsplit_once(':')) {
        let host = public.0.trim_start_matches('[').trim_end_matches(']').to_owned();
        // Apps that have no address of their own are reached one label below.
        if AppAddress::parse(&host).is_some() {
            names.push(format!("*.{host}"));
        }
        names.push(host);
    }
    names.dedup();
    let pair = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Remoteler proxy, self-signed");
    let issued = params.self_signed(&pair)?;
    data_dir.write(key, &pair.serialize_pem())?;
    data_dir.write(certificate, &issued.pem())
}
