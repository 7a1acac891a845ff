//! A cluster's authorities for tests, and the certificates they sign.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SubjectPublicKeyInfo, date_time_ymd,
};
use remoteler_client::KeyPairs;
use remoteler_core::{
    CaSet, Clock, ClusterName, HostCerts, HostId, HostIdentity, Identity, Login, NodeName, OsEntropy, Ping, RoleName,
    SSH_IDENTITY_EXTENSION, SystemClock, SystemRole, Timestamp, TrustBundle, UserCerts, UserIdentity, UserName,
    X509_IDENTITY_OID, fill_random, random_uuid, ssh_identity_value, x509_naming,
};
use remoteler_tunnel::{SharedTlsIdentity, TlsIdentity};
use ssh_key::{
    PrivateKey, PublicKey,
    certificate::{Builder, CertType},
};

/// The years in which hosts' certificates are valid.
pub(crate) const BEGINNING: i32 = 2020;
pub(crate) const END: i32 = 2199;

pub(crate) struct Authority {
    ssh: PrivateKey,
    x509: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let ssh = KeyPairs::generate(name).unwrap().ssh_key().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Self { ssh, x509: Issuer::new(params, key), certificate }
    }

    fn public(&self) -> CaSet {
        CaSet { ssh: vec![self.ssh.public_key().clone()], x509: vec![self.certificate.clone()] }
    }

    /// Both certificates for `identity`, SSH and X.509.
    fn sign(
        &self,
        identity: &Identity,
        principals: &[String],
        ssh_key: &str,
        tls_key: &str,
        expires: u64,
    ) -> (String, String) {
        let key = PublicKey::from_openssh(ssh_key).unwrap();
        let nonce: [u8; 16] = fill_random(&OsEntropy);
        let now = SystemClock.now().unix_seconds_unsigned();
        let mut builder = Builder::new(nonce, key.key_data().clone(), now - 60, expires).unwrap();
        builder.serial(1).unwrap().key_id(identity.subject()).unwrap();
        builder.cert_type(if matches!(identity, Identity::User(_)) { CertType::User } else { CertType::Host }).unwrap();
        for principal in principals {
            builder.valid_principal(principal).unwrap();
        }
        builder.extension(SSH_IDENTITY_EXTENSION, ssh_identity_value(identity)).unwrap();
        let ssh = builder.sign(&self.ssh).unwrap().to_openssh().unwrap();

        let naming = x509_naming(identity);
        let mut params = CertificateParams::default();
        // Two certificates of one key are two.
        let mut serial: [u8; 16] = fill_random(&OsEntropy);
        serial[0] = 0x40;
        params.serial_number = Some(serial.to_vec().into());
        params.distinguished_name.push(DnType::CommonName, naming.common_name);
        params.custom_extensions = vec![CustomExtension::from_oid_content(&X509_IDENTITY_OID, naming.extension)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if matches!(identity, Identity::Host(_)) {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.not_before = date_time_ymd(BEGINNING, 1, 1);
        params.not_after = date_time_ymd(END, 1, 1);
        let key = SubjectPublicKeyInfo::from_pem(tls_key).unwrap();
        (ssh, params.signed_by(&key, &self.x509).unwrap().pem())
    }
}

pub(crate) struct Cluster {
    pub(crate) name: ClusterName,
    user: Authority,
    host: Authority,
}

impl Cluster {
    pub(crate) fn new(name: &str) -> Self {
        let name = ClusterName::new(name).unwrap();
        Self { user: Authority::new("user CA"), host: Authority::new("host CA"), name }
    }

    pub(crate) fn trust(&self) -> TrustBundle {
        TrustBundle::new(self.name.clone(), self.user.public(), self.host.public())
    }

    pub(crate) fn pin(&self) -> String {
        self.trust().host_pins().unwrap().remove(0)
    }

    pub(crate) fn host_certs(&self, name: &str, roles: &[SystemRole], ssh_key: &str, tls_key: &str) -> HostCerts {
        self.host_certs_of(HostId::from_uuid(random_uuid(&OsEntropy)), name, roles, ssh_key, tls_key)
    }

    pub(crate) fn host_certs_of(
        &self,
        id: HostId,
        name: &str,
        roles: &[SystemRole],
        ssh_key: &str,
        tls_key: &str,
    ) -> HostCerts {
        let host = HostIdentity {
            id,
            name: NodeName::new(name).unwrap(),
            cluster: self.name.clone(),
            roles: roles.iter().copied().collect(),
            kube_clusters: Default::default(),
            apps: Default::default(),
            labels: Default::default(),
            generation: 0,
        };
        let (host_id, principals) = (host.id, host.principals());
        let (ssh_certificate, tls_certificate) =
            self.host.sign(&Identity::Host(host), &principals, ssh_key, tls_key, u64::MAX);
        HostCerts {
            host_id,
            cluster_name: self.name.clone(),
            ssh_certificate,
            tls_certificate,
            tls_client_certificate: None,
            trust: self.trust(),
        }
    }

    pub(crate) fn ping(&self, server_time: Timestamp) -> Ping {
        Ping { cluster_name: self.name.clone(), server_version: "1".into(), server_time }
    }

    /// TLS identity of a service, its authority in the chain.
    pub(crate) fn service(&self, role: SystemRole) -> std::sync::Arc<SharedTlsIdentity> {
        self.service_of(HostId::from_uuid(random_uuid(&OsEntropy)), role)
    }

    pub(crate) fn service_of(&self, id: HostId, role: SystemRole) -> std::sync::Arc<SharedTlsIdentity> {
        let keys = KeyPairs::generate("service").unwrap();
        let certs = self.host_certs_of(id, "service", &[role], &keys.ssh_public, &keys.tls_public);
        let authority = pem::encode(&pem::Pem::new("CERTIFICATE", self.host.certificate.clone()));
        let chain = format!("{}\n{authority}", certs.tls_certificate);
        SharedTlsIdentity::new(TlsIdentity::from_pem(chain.as_bytes(), keys.tls_private.reveal().as_bytes()).unwrap())
    }

    pub(crate) fn user_certs(&self, user: &str, keys: &KeyPairs, life: Duration) -> UserCerts {
        let roles = [RoleName::new("access").unwrap()];
        let identity = UserIdentity {
            user: UserName::new(user).unwrap(),
            cluster: self.name.clone(),
            roles: roles.clone().into(),
            traits: Default::default(),
            logins: vec![Login::new("root").unwrap()],
        };
        let expires = SystemClock.now().plus(life).unix_seconds();
        let (ssh_certificate, tls_certificate) = self.user.sign(
            &Identity::User(identity),
            &["root".into()],
            &keys.ssh_public,
            &keys.tls_public,
            u64::try_from(expires).unwrap(),
        );
        UserCerts {
            ssh_certificate,
            tls_certificate,
            expires: Timestamp::from_unix_seconds(expires),
            roles: roles.into(),
            logins: vec!["root".into()],
            trust: self.trust(),
            logout_connector: None,
        }
    }
}
