//! Enrolment: the authority and what a board needs to prove who it is.

mod authority;
mod certificate;
mod folder;
mod private;

pub use authority::{Authority, AuthorityError, CERTIFICATE_VALIDITY, Signed};
pub use certificate::{CertificateRecord, Certified, Fingerprint};
pub use folder::{EnrollError, Reach, authority_of, enroll, enroll_all, reissue, replace, write_private_folder};
pub use private::PrivateFileError;
