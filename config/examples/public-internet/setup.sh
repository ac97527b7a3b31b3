#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the files of a site of these examples: gateway.yaml and router.yaml with its names in them,
# DKIM keys, API keys, users with passwords, and the DNS records to publish.  What exists is kept,
# so it can be run again; only DIR/dns-records.txt is written anew.
set -eu
usage() {
	cat <<END
usage: setup.sh --domain NAME --host NAME --ipv4 ADDRESS [OPTIONS]

  --domain NAME      the domain whose mail it is, as in example.com
  --host NAME        the mail host, as in mail.example.com
  --ipv4 ADDRESS     its address
  --ipv6 ADDRESS     the other one, if it has one
  --users "NAMES"    mailboxes that may log in and send (alice bob)
  --partner NAME     a domain to which mail goes with verified TLS only (partner.example)
  --resolver ADDRESS the name server to ask (127.0.0.1)
  --etc DIR          where the files go (/etc/koukan)
  --state DIR        where the queue is (/var/lib/koukan)

KOUKAN names the program (koukan).
END
}
here=$(cd "$(dirname "$0")" && pwd)
koukan=${KOUKAN:-koukan}
domain='' host='' ipv4='' ipv6='' users='alice bob' partner=partner.example
resolver=127.0.0.1 etc=/etc/koukan state=/var/lib/koukan
while [ $# -gt 0 ]; do
	case $1 in
	--domain) domain=${2-} ;;
	--host) host=${2-} ;;
	--ipv4) ipv4=${2-} ;;
	--ipv6) ipv6=${2-} ;;
	--users) users=${2-} ;;
	--partner) partner=${2-} ;;
	--resolver) resolver=${2-} ;;
	--etc) etc=${2-} ;;
	--state) state=${2-} ;;
	--help | -h) usage && exit 0 ;;
	*) usage >&2 && exit 2 ;;
	esac
	[ $# -gt 1 ] || { usage >&2 && exit 2; }
	shift 2
done
if [ -z "$domain" ] || [ -z "$host" ] || [ -z "$ipv4" ]; then
	usage >&2
	exit 2
fi
case "$domain$host$ipv4$ipv6$users$partner$resolver$etc$state" in
*[!A-Za-z0-9.:/_@\ -]*) echo "setup.sh: a name or path has a character that it cannot have" >&2 && exit 2 ;;
esac

umask 077
mkdir -p "$etc/dkim" "$etc/tls"

# ---- keys ----

# api_key NAME: a key in NAME.apikey, its hash in NAME.apikey.hash.
api_key() {
	[ ! -e "$etc/$1.apikey" ] || return 0
	line=$("$koukan" secret --api-key 2>"$etc/new.key")
	echo "$line" | sed 's/.*"\(sha256:[0-9a-f]*\)".*/\1/' >"$etc/$1.apikey.hash"
	sed 's/^key: //' "$etc/new.key" >"$etc/new"
	rm "$etc/new.key"
	mv "$etc/new" "$etc/$1.apikey"
}
for name in router gateway application operator monitoring; do
	api_key "$name"
done

# dkim_key NAME SELECTOR TYPE: a private key in dkim/NAME.pem, its DNS record in dkim/NAME.txt.
dkim_key() {
	[ ! -e "$etc/dkim/$1.pem" ] || return 0
	"$koukan" dkim key --domain "$domain" --selector "$2" --type "$3" --out "$etc/dkim/$1.pem" \
		>"$etc/dkim/$1.txt" 2>/dev/null
}
dkim_key rsa rsa2026 rsa
dkim_key ed25519 ed2026 ed25519

if [ ! -e "$etc/users.json" ]; then
	comma='{'
	: >"$etc/passwords.txt"
	: >"$etc/new"
	for user in $users; do
		entry=$("$koukan" secret --user "$user" 2>"$etc/new.key")
		echo "$user: $(sed 's/^password: //' "$etc/new.key")" >>"$etc/passwords.txt"
		entry=${entry#\{}
		printf '%s%s' "$comma" "${entry%\}}" >>"$etc/new"
		comma=',
 '
	done
	echo '}' >>"$etc/new"
	rm "$etc/new.key"
	mv "$etc/new" "$etc/users.json"
	echo "passwords of the users: $etc/passwords.txt (hand them out, then delete it)"
fi

# ---- configuration ----

hash() {
	cat "$etc/$1.apikey.hash"
}
boxes=$(echo "$users" | sed 's/  */, /g')
zeros=000000000000000000000000000000000000000000000000000000000000000
for file in gateway.yaml router.yaml; do
	[ ! -e "$etc/$file" ] || { echo "kept: $etc/$file" && continue; }
	sed -e "s/mail\\.example\\.com/@HOST@/g" \
		-e "s/partner\\.example/@PARTNER@/g" \
		-e "s/example\\.com/$domain/g" \
		-e "s/@PARTNER@/$partner/g" \
		-e "s/@HOST@/$host/g" \
		-e "s|/etc/koukan|$etc|g" \
		-e "s|/var/lib/koukan|$state|g" \
		-e "s/dns_forward: \\['127\\.0\\.0\\.1'\\]/dns_forward: ['$resolver']/" \
		-e "s/mailer-daemon, alice, bob\\]/mailer-daemon, $boxes]/" \
		-e "s/sha256:${zeros}1/$(hash router)/" \
		-e "s/sha256:${zeros}2/$(hash monitoring)/" \
		-e "s/sha256:${zeros}3/$(hash gateway)/" \
		-e "s/sha256:${zeros}4/$(hash application)/" \
		-e "s/sha256:${zeros}5/$(hash operator)/" \
		"$here/$file" >"$etc/new"
	mv "$etc/new" "$etc/$file"
done

# ---- who may read what ----

# Each process its own half, as soon as its user is there (docs/public-internet.md makes them).
chmod 755 "$etc"
give() {
	if [ "$(id -u)" -eq 0 ] && id "$1" >/dev/null 2>&1; then
		(
			group=$1
			shift
			cd "$etc"
			chown -R "root:$group" "$@"
			chmod -R g+rX "$@"
		)
	fi
}
give koukan-gateway gateway.yaml gateway.apikey users.json tls
give koukan-router router.yaml router.apikey dkim

# ---- DNS ----

reverse=$(echo "$ipv4" | awk -F. '{ print $4 "." $3 "." $2 "." $1 ".in-addr.arpa." }')
{
	echo "; Mail to $domain comes to $host, at these addresses."
	echo "$domain. 3600 IN MX 10 $host."
	echo "$host. 3600 IN A $ipv4"
	[ -z "$ipv6" ] || echo "$host. 3600 IN AAAA $ipv6"
	echo "; SPF: only the MX sends for the domain; the host itself sends bounces."
	echo "$domain. 3600 IN TXT \"v=spf1 mx -all\""
	echo "$host. 3600 IN TXT \"v=spf1 a -all\""
	echo "; DKIM: the public halves of our keys."
	sed 's/^\([^ ]*\) IN/\1 3600 IN/' "$etc/dkim/rsa.txt" "$etc/dkim/ed25519.txt"
	echo "; DMARC: begin with p=none and read the reports; p=reject when all your mail passes."
	echo "_dmarc.$domain. 3600 IN TXT \"v=DMARC1; p=reject; rua=mailto:postmaster@$domain\""
	echo "; Reverse DNS, in the zone of whoever gave you the address."
	echo "$reverse 3600 IN PTR $host."
	[ -z "$ipv6" ] || echo "; $ipv6 likewise: PTR $host."
} >"$etc/dns-records.txt"
echo "to publish: $etc/dns-records.txt"
