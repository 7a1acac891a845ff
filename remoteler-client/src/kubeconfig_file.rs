//! A kubeconfig that stands alone: Kubernetes clusters, and key and certificate of one user inside it, for programs on machines where
//! none of ours is. Owns its text; writes no file.

use base64::{Engine, engine::general_purpose::STANDARD};
use remoteler_core::{ClusterName, KubeClusterName, Secret, TrustBundle, UserName, wire};
use serde_json::json;

use crate::{
    profile::ProxyAddr,
    store::pem_certificates,
    yaml::{self, YamlError},
};

/// What goes into it.
#[derive(Clone, Debug)]
pub struct KubeconfigFile<'a> {
    /// Proxy through which the cluster is reached.
    pub proxy: &'a ProxyAddr,
    /// Kubernetes clusters, each with a context; of only one the context is selected.
    pub kube_clusters: &'a [KubeClusterName],
    /// Who.
    pub user: &'a UserName,
    /// The X.509 certificate, PEM.
    pub certificate: &'a str,
    /// Its key, PEM.
    pub key: &'a Secret,
    /// The host authority in here signs the Kubernetes service's certificate.
    pub trust: &'a TrustBundle,
}

impl KubeconfigFile<'_> {
    /// The text, for stock kubectl of any version.
    ///
    /// # Errors
    /// [`YamlError`] when it cannot be written as YAML.
    pub fn to_yaml(&self) -> Result<Secret, YamlError> {
        let cluster: &ClusterName = &self.trust.cluster;
        let (mut clusters, mut users, mut contexts) = (Vec::new(), Vec::new(), Vec::new());
        for kube_cluster in self.kube_clusters {
            let context = format!("{cluster}-{kube_cluster}");
            let user = format!("{context}-{}", self.user);
            let path = format!("/v1/kube/{cluster}/{}", wire::segment(kube_cluster.as_str()));
            clusters.push(json!({ "name": context, "cluster": {
                "server": format!("https://{}{path}", self.proxy),
                "tls-server-name": kube_cluster.server_name(cluster),
                "certificate-authority-data": STANDARD.encode(pem_certificates(&self.trust.host.x509)),
            }}));
            users.push(json!({ "name": user, "user": {
                "client-certificate-data": STANDARD.encode(self.certificate),
                "client-key-data": STANDARD.encode(self.key.reveal()),
            }}));
            contexts.push(json!({ "name": context, "context": { "cluster": context, "user": user } }));
        }
        let selected = match self.kube_clusters {
            [one] => format!("{cluster}-{one}"),
            _ => String::new(),
        };
        let document = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": clusters,
            "users": users,
            "contexts": contexts,
            "current-context": selected,
        });
        yaml::write(&document).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use remoteler_core::CaSet;
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_kubeconfig_names_its_clusters_and_holds_the_key() {
        let host = CaSet { ssh: Vec::new(), x509: vec![vec![0x30, 0]] };
        let none = CaSet { ssh: Vec::new(), x509: Vec::new() };
        let trust = TrustBundle::new(ClusterName::new("root.example.com").unwrap(), none, host);
        let (proxy, kube_cluster) = ("p.example.com:443".parse().unwrap(), KubeClusterName::new("staging").unwrap());
        let mut file = KubeconfigFile {
            proxy: &proxy,
            kube_clusters: std::slice::from_ref(&kube_cluster),
            user: &UserName::new("ann").unwrap(),
            certificate: "CERT",
            key: &Secret::new("KEY"),
            trust: &trust,
        };
        let text = file.to_yaml().unwrap();
        let read: Value = yaml::read(text.reveal()).unwrap();
        let cluster = &read["clusters"][0]["cluster"];
        assert_eq!(cluster["server"], "https://p.example.com:443/v1/kube/root.example.com/staging");
        assert_eq!(cluster["tls-server-name"], kube_cluster.server_name(&trust.cluster));
        assert_eq!(cluster["certificate-authority-data"], STANDARD.encode(pem_certificates(&trust.host.x509)));
        let user = &read["users"][0];
        assert_eq!(user["user"]["client-key-data"], STANDARD.encode("KEY"));
        assert_eq!(user["user"]["client-certificate-data"], STANDARD.encode("CERT"));
        assert_eq!(read["contexts"][0]["context"]["user"], user["name"]);
        assert_eq!(read["current-context"], read["contexts"][0]["name"]);

        let both = [kube_cluster.clone(), KubeClusterName::new("production").unwrap()];
        file.kube_clusters = &both;
        let read: Value = yaml::read(file.to_yaml().unwrap().reveal()).unwrap();
        assert_eq!(read["contexts"][1]["name"], "root.example.com-production");
        assert_eq!((&read["current-context"], &read["users"][1]["user"]), (&"".into(), &user["user"]));
    }
}
