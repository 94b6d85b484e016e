/*
 * Compiled into the static libssh, see static_libssh.zig: there libssh's own verification of a
 * signature has another name, and this stands in its place. A security key (sk-) signs along
 * whether a person touched it. libssh checks the signature, frees it and shows its flags to nobody,
 * so this is the one place where they can be looked at.
 */

#include "config.h"

#include "libssh/pki.h"
#include "libssh/priv.h"

/* FIDO CTAP2, "up" of the authenticator data; libssh.h has its own name for the same bit. */
enum { USER_PRESENT = SSH_SK_USER_PRESENCE_REQD };

/* libssh's own. */
int plue_ssh_untouched_verify(ssh_session session, ssh_signature signature, const ssh_key key,
                              const unsigned char *input, size_t input_len);

int ssh_pki_signature_verify(ssh_session session, ssh_signature signature, const ssh_key key,
                             const unsigned char *input, size_t input_len) {
    ssh_reset_error(session); /* what stays there is about this signature */
    int result = plue_ssh_untouched_verify(session, signature, key, input, input_len);
    if (result == SSH_OK && is_sk_key_type(key->type) && !(signature->sk_flags & USER_PRESENT)) {
        /* auth.zig knows it by this text. */
        ssh_set_error(session, SSH_REQUEST_DENIED, "security key was not touched");
        return SSH_ERROR;
    }
    return result;
}
