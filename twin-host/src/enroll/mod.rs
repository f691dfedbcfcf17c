//! Enrolment: the authority and what a board needs to prove who it is.

mod authority;
mod certificate;
mod folder;
mod private;

pub use authority::{Authority, AuthorityError, CERTIFICATE_VALIDITY, Signed};
pub use certificate::{CertificateRecord, Certified, Fingerprint};
pub use folder::{EnrollError, Handover, Reach, authority_of, enroll, reissue, write_private_folder};
pub use private::PrivateFileError;
