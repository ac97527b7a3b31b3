/* SPDX-License-Identifier: Apache-2.0 */
#include "mailauth/spf.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/net.h"
#include "base/text.h"
#include "mailauth/spf_int.h"

#define FRAMES_MAX    (SPF_LOOKUPS_MAX + 1) /* each include is a look-up */
#define PATH_TEXT_MAX 400
#define RECEIVER      "unknown"

/* One policy being read: the first one, and one more for each include inside another. */
typedef struct Frame {
	char *domain;
	char *record; /* NULL: not here yet */
	const char *at;
	SpfTerm term;    /* under way */
	bool has_term;   /* `term` has begun and is not decided */
	bool counted;    /* it has been counted as a look-up */
	bool redirected; /* read in place of another: it has to have a policy */
	SpfTerm redirect, exp;
	bool has_redirect, has_exp;
} Frame;

typedef enum Asking {
	ASKING_NOTHING,
	ASKING_RECORD,
	ASKING_ADDRESS, /* of `a` */
	ASKING_MX,
	ASKING_MX_ADDRESS,
	ASKING_PTR,
	ASKING_PTR_ADDRESS,
	ASKING_EXISTS,
	ASKING_EXPLANATION
} Asking;

struct Spf {
	uint8_t ip[16];
	bool v6;
	char *sender, *local, *sender_domain, *helo, *receiver;
	int64_t now;

	Frame frames[FRAMES_MAX];
	unsigned depth; /* frames in use */
	unsigned lookups, voids;

	Asking asking;
	char *name;
	DnsType type;
	GPtrArray *hosts; /* char*: of the MX or PTR answer */
	guint host;       /* the one being asked about */
	bool host_found;  /* one of the MX hosts exists */
	bool names_known; /* `names` is complete */
	GPtrArray *names; /* char*: of the client, that lead back to it */

	bool done;
	SpfResult result;
	char *domain; /* of the first policy */
	char *explanation, *reason;
	GPtrArray *path;
};

static const char *const result_names[] = {
	"temperror", "pass", "permerror", "fail", "softfail", "none", "neutral",
};
_Static_assert(G_N_ELEMENTS(result_names) == SPF_RESULTS, "a name for each result");

const char *
spf_result_name(SpfResult result)
{
	return result_names[result];
}

/* ---- the account ---- */

static void note(Spf *spf, const char *format, ...) K_PRINTF(2, 3);

static void
note(Spf *spf, const char *format, ...)
{
	/* The last line is kept for the result. */
	if (spf->path->len + (spf->done ? 0 : 1) >= SPF_PATH_LINES)
		return;
	va_list args;
	va_start(args, format);
	g_autofree char *text = g_strdup_vprintf(format, args);
	va_end(args);
	g_autofree char *clean = text_escape(text, strlen(text), PATH_TEXT_MAX);
	unsigned indent = spf->depth > 1 ? 2 * (spf->depth - 1) : 0;
	g_ptr_array_add(spf->path, g_strdup_printf("%*s%s", (int)indent, "", clean));
}

static void
finish(Spf *spf, SpfResult result, const char *reason)
{
	spf->done = true;
	spf->result = result;
	spf->asking = ASKING_NOTHING;
	if (spf->reason == NULL)
		spf->reason = text_escape(reason, strlen(reason), PATH_TEXT_MAX);
	spf->depth = MIN(spf->depth, 1u);
	note(spf, "result: %s (%s)", spf_result_name(result), spf->reason);
}

static Frame *
top(Spf *spf)
{
	return &spf->frames[spf->depth - 1];
}

static void
ask(Spf *spf, Asking asking, char *name, DnsType type) /* name: moved */
{
	g_free(spf->name);
	spf->name = name;
	spf->type = type;
	spf->asking = asking;
}

static DnsType
address_type(const Spf *spf)
{
	return spf->v6 ? DNS_AAAA : DNS_A;
}

/* ---- names ---- */

/* A multi-label name with labels of 1..63 bytes (RFC 7208 4.3). */
static bool
is_domain(const char *name)
{
	size_t len = strlen(name), label = 0, labels = 1;
	if (len > 0 && name[len - 1] == '.')
		len--;
	if (len == 0 || len > SPF_NAME_TEXT_MAX || name[0] == '[')
		return false;
	for (size_t i = 0; i < len; i++) {
		if (name[i] == '.') {
			if (label == 0)
				return false;
			label = 0;
			labels++;
		} else if ((unsigned char)name[i] <= 0x20 || name[i] == 0x7f || ++label > 63) {
			return false;
		}
	}
	return label > 0 && labels > 1;
}

static bool
is_same_or_below(const char *name, const char *domain)
{
	size_t len = strlen(name), want = strlen(domain);
	if (len < want || g_ascii_strcasecmp(name + len - want, domain) != 0)
		return false;
	return len == want || name[len - want - 1] == '.';
}

static bool
is_in_network(const Spf *spf, const uint8_t *addr, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;
	if (memcmp(spf->ip, addr, whole) != 0)
		return false;
	return rest == 0 || (spf->ip[whole] ^ addr[whole]) >> (8 - rest) == 0;
}

static bool
records_match(const Spf *spf, const DnsAnswer *answer, unsigned bits)
{
	for (guint i = 0; i < answer->records->len; i++) {
		const DnsRecord *record = g_ptr_array_index(answer->records, i);
		uint8_t addr[16];
		if (inet_pton(spf->v6 ? AF_INET6 : AF_INET, record->text, addr) == 1 &&
		    is_in_network(spf, addr, bits))
			return true;
	}
	return false;
}

/* The best of the client's names (RFC 7208 7.3, "p"). */
static const char *
client_name(const Spf *spf, const char *domain)
{
	const char *below = NULL, *any = NULL;
	for (guint i = 0; i < spf->names->len; i++) {
		const char *name = g_ptr_array_index(spf->names, i);
		if (g_ascii_strcasecmp(name, domain) == 0)
			return name;
		if (below == NULL && is_same_or_below(name, domain))
			below = name;
		if (any == NULL)
			any = name;
	}
	if (below != NULL)
		return below;
	return any != NULL ? any : "unknown";
}

static SpfMacros
macros(const Spf *spf, const char *domain)
{
	return (SpfMacros){
		.sender = spf->sender,
		.local = spf->local,
		.sender_domain = spf->sender_domain,
		.domain = domain,
		.helo = spf->helo,
		.receiver = spf->receiver,
		.client_name = client_name(spf, domain),
		.ip = spf->ip,
		.v6 = spf->v6,
		.now = spf->now,
	};
}

/* What a term is about: its domain-spec, or the domain of the policy.  Caller frees. */
static char *
target(const Spf *spf, const Frame *frame, const SpfTerm *term)
{
	if (term->spec == NULL)
		return g_strdup(frame->domain);
	const SpfMacros m = macros(spf, frame->domain);
	return spf_macro_domain(term->spec, term->spec_len, &m);
}

/* ---- policies ---- */

static void
frame_clear(Frame *frame)
{
	g_free(frame->domain);
	g_free(frame->record);
	*frame = (Frame){0};
}

static void policy_done(Spf *spf, SpfResult result, const char *reason);

static void
policy_begin(Spf *spf, char *domain, bool redirected) /* domain: moved */
{
	k_assert(spf->depth < FRAMES_MAX);
	Frame *frame = &spf->frames[spf->depth++];
	*frame = (Frame){.domain = domain, .redirected = redirected};
	if (!is_domain(domain)) {
		g_autofree char *why = g_strdup_printf("'%s' is no domain name", domain);
		policy_done(spf, SPF_NONE, why);
		return;
	}
	ask(spf, ASKING_RECORD, g_strdup(domain), DNS_TXT);
}

/* Syntax errors anywhere make the whole record worthless (4.6), so it is read to its end before
 * the first term is looked at. */
static const char *
record_fault(Frame *frame)
{
	const char *cursor = frame->record;
	SpfTerm term;
	SpfRead read;
	if (strlen(frame->record) > SPF_RECORD_MAX)
		return "the record is too long";
	while ((read = spf_term_next(&cursor, &term)) == SPF_READ_TERM) {
		bool *seen = NULL;
		if (term.kind == SPF_TERM_REDIRECT) {
			seen = &frame->has_redirect;
			frame->redirect = term;
		} else if (term.kind == SPF_TERM_EXP) {
			seen = &frame->has_exp;
			frame->exp = term;
		}
		if (seen != NULL && *seen)
			return "a modifier stands there twice";
		if (seen != NULL)
			*seen = true;
	}
	return read == SPF_READ_BAD ? "syntax error" : NULL;
}

static void
policy_read(Spf *spf, const DnsAnswer *answer)
{
	Frame *frame = top(spf);
	const char *found = NULL;
	guint count = 0;
	if (answer->status == DNS_TEMP) {
		finish(spf, SPF_TEMPERROR, "the policy cannot be looked up now");
		return;
	}
	for (guint i = 0; i < answer->records->len; i++) {
		const DnsRecord *record = g_ptr_array_index(answer->records, i);
		if (spf_record_is(record->text)) {
			found = record->text;
			count++;
		}
	}
	note(spf, "%s: %s", frame->domain, found != NULL ? found : "no policy");
	if (count == 0) {
		policy_done(spf, SPF_NONE,
			    answer->status == DNS_NXDOMAIN ? "no such domain" : "no policy");
		return;
	}
	if (count > 1) {
		policy_done(spf, SPF_PERMERROR, "more than one policy");
		return;
	}
	frame->record = g_strdup(found);
	frame->at = frame->record;
	const char *fault = record_fault(frame);
	if (fault != NULL)
		policy_done(spf, SPF_PERMERROR, fault);
}

static void
term_done(Frame *frame)
{
	frame->has_term = false;
	frame->counted = false;
}

static void
term_matched(Spf *spf)
{
	const Frame *frame = top(spf);
	static const char qualifiers[] = "+-~?";
	static const SpfResult results[] = {SPF_PASS, SPF_FAIL, SPF_SOFTFAIL, SPF_NEUTRAL};
	g_autofree char *text = g_strndup(frame->term.text, frame->term.len);
	note(spf, "%s matches", text);
	policy_done(spf, results[strchr(qualifiers, frame->term.qualifier) - qualifiers], text);
}

static void
term_missed(Spf *spf)
{
	Frame *frame = top(spf);
	note(spf, "%.*s does not match", (int)frame->term.len, frame->term.text);
	term_done(frame);
}

/* A policy has its result: what that means for the one that included it (5.2), or at the end. */
static void
policy_done(Spf *spf, SpfResult result, const char *reason)
{
	Frame *frame = top(spf);
	if (result == SPF_NONE && frame->redirected) {
		finish(spf, SPF_PERMERROR, "the target of redirect has no policy");
		return;
	}
	if (result == SPF_PERMERROR || result == SPF_TEMPERROR) {
		finish(spf, result, reason);
		return;
	}
	if (spf->depth > 1) {
		note(spf, "%s for this part", spf_result_name(result));
		frame_clear(frame);
		spf->depth--;
		if (result == SPF_NONE)
			finish(spf, SPF_PERMERROR, "an included domain has no policy");
		else if (result == SPF_PASS)
			term_matched(spf);
		else
			term_missed(spf);
		return;
	}
	spf->result = result;
	spf->reason = text_escape(reason, strlen(reason), PATH_TEXT_MAX);
	if (result != SPF_FAIL || !frame->has_exp) {
		finish(spf, result, spf->reason);
		return;
	}
	frame->term = frame->exp; /* run() does it: its macros may need the client's name */
	frame->has_term = true;
	frame->counted = true;
}

/* ---- terms ---- */

/* The term is one of those that are counted (4.6.4).  False: one too many. */
static bool
count_lookup(Spf *spf, Frame *frame)
{
	if (frame->counted)
		return true;
	frame->counted = true;
	if (spf->lookups == SPF_LOOKUPS_MAX) {
		finish(spf, SPF_PERMERROR, "too many terms that look up");
		return false;
	}
	spf->lookups++;
	return true;
}

static void
count_void(Spf *spf)
{
	if (++spf->voids > SPF_VOIDS_MAX)
		finish(spf, SPF_PERMERROR, "too many look-ups that find nothing");
}

static bool
is_void(const DnsAnswer *answer)
{
	return answer->status == DNS_NXDOMAIN || answer->status == DNS_NODATA;
}

static void
ask_client_names(Spf *spf)
{
	char literal[INET6_ADDRSTRLEN];
	(void)inet_ntop(spf->v6 ? AF_INET6 : AF_INET, spf->ip, literal, sizeof(literal));
	ask(spf, ASKING_PTR, net_reverse_name(literal), DNS_PTR);
}

static void
do_ptr(Spf *spf, const Frame *frame)
{
	g_autofree char *domain = target(spf, frame, &frame->term);
	for (guint i = 0; i < spf->names->len; i++) {
		if (is_same_or_below(g_ptr_array_index(spf->names, i), domain)) {
			term_matched(spf);
			return;
		}
	}
	term_missed(spf);
}

static void
do_redirect(Spf *spf, Frame *frame)
{
	char *domain = target(spf, frame, &frame->redirect);
	note(spf, "redirect to %s", domain);
	spf->depth--;
	frame_clear(frame);
	policy_begin(spf, domain, true); /* as if it had been asked first (6.1) */
}

static void
do_term(Spf *spf, Frame *frame)
{
	const SpfTerm *term = &frame->term;
	switch (term->kind) {
	case SPF_TERM_ALL:
		term_matched(spf);
		break;
	case SPF_TERM_IP4:
	case SPF_TERM_IP6:
		if (spf->v6 == (term->kind == SPF_TERM_IP6) &&
		    is_in_network(spf, term->addr, spf->v6 ? term->bits6 : term->bits4))
			term_matched(spf);
		else
			term_missed(spf);
		break;
	case SPF_TERM_A:
		ask(spf, ASKING_ADDRESS, target(spf, frame, term), address_type(spf));
		break;
	case SPF_TERM_MX:
		ask(spf, ASKING_MX, target(spf, frame, term), DNS_MX);
		break;
	case SPF_TERM_EXISTS:
		ask(spf, ASKING_EXISTS, target(spf, frame, term), DNS_A);
		break;
	case SPF_TERM_PTR:
		do_ptr(spf, frame);
		break;
	case SPF_TERM_INCLUDE:
		policy_begin(spf, target(spf, frame, term), false);
		break;
	case SPF_TERM_EXP: /* only at the end, after a fail */
		ask(spf, ASKING_EXPLANATION, target(spf, frame, term), DNS_TXT);
		break;
	case SPF_TERM_REDIRECT:
	case SPF_TERM_OTHER:
		term_done(frame);
		break;
	}
}

static bool
looks_up(SpfTermKind kind)
{
	return kind == SPF_TERM_A || kind == SPF_TERM_MX || kind == SPF_TERM_PTR ||
	       kind == SPF_TERM_EXISTS || kind == SPF_TERM_INCLUDE || kind == SPF_TERM_REDIRECT;
}

static bool
needs_names(const Spf *spf, const SpfTerm *term)
{
	return !spf->names_known &&
	       (term->kind == SPF_TERM_PTR ||
		(term->spec != NULL && spf_macro_needs_name(term->spec, term->spec_len)));
}

static void
begin_end(Spf *spf, Frame *frame)
{
	if (!frame->has_redirect) {
		policy_done(spf, SPF_NEUTRAL, "no term matches");
		return;
	}
	frame->counted = frame->has_term && frame->counted;
	frame->term = frame->redirect;
	frame->has_term = true;
	if (!count_lookup(spf, frame))
		return;
	if (needs_names(spf, &frame->redirect))
		ask_client_names(spf);
	else
		do_redirect(spf, frame);
}

/* One step of the topmost policy. */
static void
step(Spf *spf)
{
	Frame *frame = top(spf);
	if (!frame->has_term) {
		do {
			if (spf_term_next(&frame->at, &frame->term) != SPF_READ_TERM) {
				begin_end(spf, frame);
				return;
			}
		} while (frame->term.kind >= SPF_TERM_REDIRECT);
		frame->has_term = true;
		frame->counted = false;
	} else if (frame->term.kind == SPF_TERM_REDIRECT) {
		begin_end(spf, frame);
		return;
	}
	if (looks_up(frame->term.kind) && !count_lookup(spf, frame))
		return;
	if (needs_names(spf, &frame->term))
		ask_client_names(spf);
	else
		do_term(spf, frame);
}

static void
run(Spf *spf)
{
	while (!spf->done && spf->asking == ASKING_NOTHING)
		step(spf);
}

/* ---- answers ---- */

static char *
bare_name(const char *name)
{
	size_t len = strlen(name);
	return g_strndup(name, len > 0 && name[len - 1] == '.' ? len - 1 : len);
}

static void
take_hosts(Spf *spf, const DnsAnswer *answer, guint max)
{
	g_ptr_array_set_size(spf->hosts, 0);
	spf->host = 0;
	spf->host_found = false;
	for (guint i = 0; i < MIN(answer->records->len, max); i++) {
		const DnsRecord *record = g_ptr_array_index(answer->records, i);
		g_ptr_array_add(spf->hosts, bare_name(record->text));
	}
}

static void
ask_host(Spf *spf, Asking asking)
{
	ask(spf, asking, g_strdup(g_ptr_array_index(spf->hosts, spf->host)), address_type(spf));
}

static void
on_address(Spf *spf, const DnsAnswer *answer)
{
	const SpfTerm *term = &top(spf)->term;
	if (answer->status == DNS_TEMP) {
		finish(spf, SPF_TEMPERROR, "an address cannot be looked up now");
		return;
	}
	if (is_void(answer))
		count_void(spf);
	if (spf->done)
		return;
	if (records_match(spf, answer, spf->v6 ? term->bits6 : term->bits4))
		term_matched(spf);
	else
		term_missed(spf);
}

static void
on_mx(Spf *spf, const DnsAnswer *answer)
{
	if (answer->status == DNS_TEMP) {
		finish(spf, SPF_TEMPERROR, "an MX cannot be looked up now");
		return;
	}
	if (answer->records->len > SPF_MX_MAX) {
		finish(spf, SPF_PERMERROR, "too many MX hosts");
		return;
	}
	if (is_void(answer))
		count_void(spf);
	if (spf->done)
		return;
	take_hosts(spf, answer, SPF_MX_MAX);
	if (spf->hosts->len == 0)
		term_missed(spf);
	else
		ask_host(spf, ASKING_MX_ADDRESS);
}

static void
on_mx_address(Spf *spf, const DnsAnswer *answer)
{
	const SpfTerm *term = &top(spf)->term;
	if (answer->status == DNS_TEMP) {
		finish(spf, SPF_TEMPERROR, "an address of an MX cannot be looked up now");
		return;
	}
	spf->host_found |= answer->status != DNS_NXDOMAIN;
	if (records_match(spf, answer, spf->v6 ? term->bits6 : term->bits4)) {
		term_matched(spf);
		return;
	}
	if (++spf->host < spf->hosts->len) {
		ask_host(spf, ASKING_MX_ADDRESS);
		return;
	}
	/* Hosts that do not exist at all are a void look-up of this term; hosts with addresses of
	 * the other family only are what half of the net looks like. */
	if (!spf->host_found)
		count_void(spf);
	if (!spf->done)
		term_missed(spf);
}

static void
on_ptr(Spf *spf, const DnsAnswer *answer)
{
	/* 5.5: an error is no match, not an error. */
	take_hosts(spf, answer, SPF_PTR_MAX);
	spf->names_known = spf->hosts->len == 0;
	if (is_void(answer) && top(spf)->term.kind == SPF_TERM_PTR)
		count_void(spf);
	if (!spf->done && !spf->names_known)
		ask_host(spf, ASKING_PTR_ADDRESS);
}

static void
on_ptr_address(Spf *spf, const DnsAnswer *answer)
{
	if (records_match(spf, answer, spf->v6 ? 128 : 32))
		g_ptr_array_add(spf->names, g_strdup(g_ptr_array_index(spf->hosts, spf->host)));
	if (++spf->host < spf->hosts->len)
		ask_host(spf, ASKING_PTR_ADDRESS);
	else
		spf->names_known = true;
}

static void
on_exists(Spf *spf, const DnsAnswer *answer)
{
	if (answer->status == DNS_TEMP) {
		finish(spf, SPF_TEMPERROR, "a name cannot be looked up now");
		return;
	}
	if (is_void(answer))
		count_void(spf);
	if (spf->done)
		return;
	if (answer->status == DNS_OK)
		term_matched(spf);
	else
		term_missed(spf);
}

/* 6.2: whatever goes wrong here leaves the result without an explanation. */
static void
on_explanation(Spf *spf, const DnsAnswer *answer)
{
	const Frame *frame = top(spf);
	if (answer->status == DNS_OK && answer->records->len == 1) {
		const DnsRecord *record = g_ptr_array_index(answer->records, 0);
		if (!spf->names_known && spf_macro_needs_name(record->text, strlen(record->text))) {
			/* asked again, from the resolver's cache, with the names known */
			ask_client_names(spf);
			return;
		}
		const SpfMacros m = macros(spf, frame->domain);
		spf->explanation = spf_macro_explain(record->text, &m);
	}
	finish(spf, spf->result, spf->reason);
}

void
spf_answer(Spf *spf, const DnsAnswer *answer)
{
	Asking asking = spf->asking;
	k_assert(!spf->done && asking != ASKING_NOTHING);
	spf->asking = ASKING_NOTHING;
	if (answer->status == DNS_TEMP)
		note(spf, "%s: no answer", spf->name);
	switch (asking) {
	case ASKING_RECORD:
		policy_read(spf, answer);
		break;
	case ASKING_ADDRESS:
		on_address(spf, answer);
		break;
	case ASKING_MX:
		on_mx(spf, answer);
		break;
	case ASKING_MX_ADDRESS:
		on_mx_address(spf, answer);
		break;
	case ASKING_PTR:
		on_ptr(spf, answer);
		break;
	case ASKING_PTR_ADDRESS:
		on_ptr_address(spf, answer);
		break;
	case ASKING_EXISTS:
		on_exists(spf, answer);
		break;
	case ASKING_EXPLANATION:
		on_explanation(spf, answer);
		break;
	case ASKING_NOTHING:
		k_unreachable();
	}
	run(spf);
}

bool
spf_next(Spf *spf, const char **ret_name, DnsType *ret_type)
{
	run(spf);
	if (spf->done)
		return false;
	*ret_name = spf->name;
	*ret_type = spf->type;
	return true;
}

/* ---- life ---- */

/* 4.3: without a local part it is postmaster; the null sender is postmaster at the HELO name
 * (2.4). */
static bool
set_sender(Spf *spf, const SpfParams *params)
{
	const char *from = params->mail_from != NULL ? params->mail_from : "";
	size_t len = strlen(from), helo_len = strlen(spf->helo);
	if (len > SPF_IDENTITY_MAX || helo_len > SPF_IDENTITY_MAX)
		return false;
	const char *at = strrchr(from, '@');
	if (at == NULL || at == from)
		spf->local = g_strdup("postmaster");
	else
		spf->local = g_strndup(from, (size_t)(at - from));
	if (at != NULL)
		spf->sender_domain = g_strdup(at + 1);
	else
		spf->sender_domain = g_strdup(len > 0 ? from : spf->helo);
	spf->sender = g_strconcat(spf->local, "@", spf->sender_domain, NULL);
	return true;
}

static bool
set_ip(Spf *spf, const char *literal)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	if (literal == NULL)
		return false;
	if (inet_pton(AF_INET, literal, spf->ip) == 1)
		return true;
	if (inet_pton(AF_INET6, literal, spf->ip) != 1)
		return false;
	spf->v6 = memcmp(spf->ip, mapped, sizeof(mapped)) != 0;
	if (!spf->v6)
		memmove(spf->ip, spf->ip + 12, 4);
	return true;
}

Spf *
spf_new(const SpfParams *params)
{
	Spf *spf = g_new0(Spf, 1);
	spf->hosts = g_ptr_array_new_with_free_func(g_free);
	spf->names = g_ptr_array_new_with_free_func(g_free);
	spf->path = g_ptr_array_new_with_free_func(g_free);
	spf->helo = g_strdup(params->helo != NULL ? params->helo : "unknown");
	spf->receiver = g_strdup(params->receiver != NULL ? params->receiver : RECEIVER);
	spf->now = params->now;
	spf->result = SPF_TEMPERROR;
	bool sender = set_sender(spf, params);
	const char *domain = params->domain != NULL ? params->domain : spf->sender_domain;
	spf->domain = bare_name(domain != NULL ? domain : "");
	if (!set_ip(spf, params->ip))
		finish(spf, SPF_NONE, "the client has no address");
	else if (!sender)
		finish(spf, SPF_NONE, "the sender's name is too long");
	else
		policy_begin(spf, g_strdup(spf->domain), false);
	return spf;
}

void
spf_free(Spf *spf)
{
	if (spf == NULL)
		return;
	for (unsigned i = 0; i < FRAMES_MAX; i++)
		frame_clear(&spf->frames[i]);
	g_ptr_array_unref(spf->hosts);
	g_ptr_array_unref(spf->names);
	g_ptr_array_unref(spf->path);
	g_free(spf->sender);
	g_free(spf->local);
	g_free(spf->sender_domain);
	g_free(spf->helo);
	g_free(spf->receiver);
	g_free(spf->name);
	g_free(spf->domain);
	g_free(spf->explanation);
	g_free(spf->reason);
	g_free(spf);
}

void
spf_give_up(Spf *spf, const char *why)
{
	if (!spf->done) {
		g_clear_pointer(&spf->reason, g_free);
		finish(spf, SPF_TEMPERROR, why);
	}
}

bool
spf_is_done(const Spf *spf)
{
	return spf->done;
}

SpfResult
spf_result(const Spf *spf)
{
	return spf->done ? spf->result : SPF_TEMPERROR;
}

const char *
spf_domain(const Spf *spf)
{
	return spf->domain;
}

const char *
spf_explanation(const Spf *spf)
{
	return spf->explanation;
}

const char *
spf_reason(const Spf *spf)
{
	return spf->reason != NULL ? spf->reason : "not done";
}

unsigned
spf_lookups(const Spf *spf)
{
	return spf->lookups;
}

const GPtrArray *
spf_path(const Spf *spf)
{
	return spf->path;
}
