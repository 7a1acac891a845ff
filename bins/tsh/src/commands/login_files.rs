//! `tsh login -o`: a login whose certificates go into files of their own, for another machine or a program. Owns the names of the files and
//! the advice how to use them. What `tsh` keeps, ssh-agent and the kubeconfig of the user stay as they are.

use std::path::Path;

use anyhow::bail;
use remoteler_client::{IdentityFile, KubeconfigFile, OutputFiles, pem_certificates};
use remoteler_core::{AuthApi, KubeClusterName, Secret};

use super::login::{self, Issued};
use crate::{
    cli::{self, FileFormat},
    context::{Context, block_on},
    output::{self, Format},
};

pub(super) fn run(context: &Context, options: &cli::Login, out: &Path) -> anyhow::Result<()> {
    // An old file is refused before anybody is asked for a password.
    let files = OutputFiles::check(out, endings(options.format), options.overwrite)?;
    let (issued, made) = block_on(async {
        let issued = login::ask(context, options, login::selected(context, options)).await?;
        if let Some(wanted) = context.common.user.as_ref().filter(|wanted| **wanted != issued.user) {
            bail!(
                "the certificates would be {}'s, not {wanted}'s; log in there as {wanted} and try again",
                issued.user
            );
        }
        let made = Made::of(&issued, options).await?;
        anyhow::Ok((issued, made))
    })??;
    let contents: Vec<_> = made.contents.iter().map(|content| content.reveal().as_bytes()).collect();
    let paths = files.write(&contents)?;
    let advice = advice(options.format, out, &issued, &made.kube_clusters);
    output::print(Format::Text, &paths, |_| advice)
}

/// What follows the name of `--out` in the names of the files.
const fn endings(format: FileFormat) -> &'static [&'static str] {
    match format {
        FileFormat::File | FileFormat::Kubernetes => &[""],
        FileFormat::Openssh => &["", "-cert.pub"],
        FileFormat::Tls => &[".key", ".crt", ".cas"],
    }
}

struct Made {
    /// In the order of the endings.
    contents: Vec<Secret>,
    /// Those in the kubeconfig.
    kube_clusters: Vec<KubeClusterName>,
}

impl Made {
    async fn of(issued: &Issued, options: &cli::Login) -> anyhow::Result<Self> {
        let Issued { proxy, user, keys, certificates } = issued;
        // Whatever is made of them: certificates for these keys, and all of them one user's.
        let identity = IdentityFile::new(keys, certificates, Some(proxy.clone()))?;
        let mut kube_clusters = Vec::new();
        let contents = match options.format {
            FileFormat::File => vec![identity.to_text()?],
            FileFormat::Openssh => {
                let certificate = format!("{}\n", certificates.ssh_certificate.trim_end());
                vec![keys.ssh_private.clone(), Secret::new(certificate)]
            }
            FileFormat::Tls => {
                let authority = pem_certificates(&certificates.trust.host.x509);
                vec![
                    keys.tls_private.clone(),
                    Secret::new(certificates.tls_certificate.as_str()),
                    Secret::new(authority),
                ]
            }
            FileFormat::Kubernetes => {
                kube_clusters = chosen(&identity, options.kube_cluster.as_ref()).await?;
                let file = KubeconfigFile {
                    proxy,
                    kube_clusters: &kube_clusters,
                    user,
                    certificate: &certificates.tls_certificate,
                    key: &keys.tls_private,
                    trust: &certificates.trust,
                };
                vec![file.to_yaml()?]
            }
        };
        Ok(Self { contents, kube_clusters })
    }
}

/// The Kubernetes clusters that the user may use: all, or the one that was named.
async fn chosen(identity: &IdentityFile, wanted: Option<&KubeClusterName>) -> anyhow::Result<Vec<KubeClusterName>> {
    let records = identity.auth(None)?.kube_clusters().await?;
    let mut names: Vec<_> = records.into_iter().map(|record| record.name).collect();
    names.sort();
    match wanted {
        Some(wanted) if names.contains(wanted) => Ok(vec![wanted.clone()]),
        Some(wanted) => {
            bail!("there is no Kubernetes cluster {wanted} that you may use; `tsh kube ls` shows those you may")
        }
        None if names.is_empty() => bail!("there is no Kubernetes cluster that you may use, so there is no kubeconfig"),
        None => Ok(names),
    }
}

/// What was made and how it is used.
fn advice(format: FileFormat, out: &Path, issued: &Issued, kube_clusters: &[KubeClusterName]) -> String {
    let out = out.display();
    let of = format!("of {}, valid until {}", issued.user, issued.certificates.expires);
    match format {
        FileFormat::File => format!("{out} is the identity file {of}.\n\n  tsh -i {out} ls\n"),
        FileFormat::Openssh => {
            let logins = issued.certificates.logins.join(", ");
            format!(
                "{out} is the key and {out}-cert.pub the certificate {of}, for the logins {logins}.\n\n  ssh -i {out} LOGIN@HOST\n"
            )
        }
        FileFormat::Tls => format!(
            "{out}.key is the key and {out}.crt the certificate {of}; {out}.cas has the authority of the cluster's hosts.\n"
        ),
        FileFormat::Kubernetes => {
            let contexts = kube_clusters.iter().map(|name| match kube_clusters {
                [_] => format!("  kubectl --kubeconfig {out} get pods\n"),
                _ => format!(
                    "  kubectl --kubeconfig {out} --context {}-{name} get pods\n",
                    issued.certificates.trust.cluster
                ),
            });
            format!("{out} is a kubeconfig {of}.\n\n{}", contexts.collect::<String>())
        }
    }
}
