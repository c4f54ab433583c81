//! Who asks: a token, or a user with a password.

/// Who asks.
#[derive(Clone)]
pub enum Login {
    /// An API token: `USER@REALM!ID=UUID`.
    Token(String),
    /// A user and a password.
    Password {
        /// `USER@REALM`.
        user: String,
        /// The password.
        password: String,
    },
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.grantee())
    }
}

impl Login {
    /// Whom a privilege is given to, as options of `pveum acl modify`.
    pub fn grantee(&self) -> String {
        match self {
            // A token with privilege separation may do what both its user and it are granted.
            Login::Token(token) => {
                let id = token.split('=').next().unwrap_or_default();
                format!("--users '{}' --tokens '{id}'", id.split('!').next().unwrap_or_default())
            }
            Login::Password { user, .. } => format!("--users '{user}'"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_never_shows_its_secret() {
        let token = Login::Token("kubeline@pve!cli=secret-uuid".into());
        assert_eq!(format!("{token:?}"), "--users 'kubeline@pve' --tokens 'kubeline@pve!cli'");
        let password = Login::Password { user: "a@pve".into(), password: "hunter2".into() };
        assert!(!format!("{password:?}").contains("hunter2"));
    }
}
