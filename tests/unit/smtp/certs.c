/* SPDX-License-Identifier: Apache-2.0 */
#include "certs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

static void
set_name(X509_NAME *name, const char *text)
{
	assert_int_equal(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
						    (const unsigned char *)text, -1, -1, 0),
			 1);
}

static void
add_extension(X509 *cert, int nid, const char *value)
{
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
	assert_non_null(extension);
	assert_int_equal(X509_add_ext(cert, extension, -1), 1);
	X509_EXTENSION_free(extension);
}

static X509 *
make(const char *name, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key, int days)
{
	static long serial = 1;
	X509 *cert = X509_new();
	X509_set_version(cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), serial++);
	X509_gmtime_adj(X509_getm_notBefore(cert), -3 * 86400L);
	X509_gmtime_adj(X509_getm_notAfter(cert), days * 86400L);
	X509_set_pubkey(cert, key);
	set_name(X509_get_subject_name(cert), name);
	X509_set_issuer_name(cert, X509_get_subject_name(issuer != NULL ? issuer : cert));
	if (issuer == NULL)
		add_extension(cert, NID_basic_constraints, "critical,CA:TRUE");
	else
		add_extension(cert, NID_subject_alt_name, "DNS:mx.example,IP:127.0.0.1");
	assert_true(X509_sign(cert, issuer_key, EVP_sha256()) > 0);
	return cert;
}

static char *
put(const char *folder, const char *name, X509 *cert, EVP_PKEY *key)
{
	char *path = g_build_filename(folder, name, NULL);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(PEM_write_X509(file, cert), 1);
	if (key != NULL)
		assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
	assert_int_equal(fclose(file), 0);
	return path;
}

void
certs_make(Certs *certs)
{
	certs->folder = g_dir_make_tmp("koukan-test-XXXXXX", NULL);
	assert_non_null(certs->folder);
	EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *key = EVP_EC_gen("P-256");
	X509 *ca = make("test authority", ca_key, NULL, ca_key, 1);
	X509 *good = make("mx.example", key, ca, ca_key, 1);
	X509 *expired = make("mx.example", key, ca, ca_key, -1);
	certs->ca = put(certs->folder, "ca.pem", ca, NULL);
	certs->good = put(certs->folder, "good.pem", good, key);
	certs->expired = put(certs->folder, "expired.pem", expired, key);
	X509_free(ca);
	X509_free(good);
	X509_free(expired);
	EVP_PKEY_free(ca_key);
	EVP_PKEY_free(key);
}

void
certs_clear(Certs *certs)
{
	char *const paths[] = {certs->ca, certs->good, certs->expired};
	for (size_t i = 0; i < G_N_ELEMENTS(paths); i++) {
		(void)unlink(paths[i]);
		g_free(paths[i]);
	}
	(void)rmdir(certs->folder);
	g_free(certs->folder);
}
