//! Enrolment: the authority and what a board needs to prove who it is.

pub mod authority;
mod folder;
mod private;

pub use authority::{Authority, AuthorityError, CERTIFICATE_VALIDITY, Certified};
pub use folder::{EnrollError, Reach, enroll};
pub use private::PrivateFileError;
