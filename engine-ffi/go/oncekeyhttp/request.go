package oncekeyhttp

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
)

// maxKey is the longest key, in bytes.
const maxKey = 255

// parseKey returns the key among the values of its headers; "" when there is none. A key that is sent twice
// is refused even when both values are equal: a proxy or a log that sees only one of them could disagree
// about the operation. The reason never shows the key, which may be a secret of its sender.
func parseKey(values []string, form KeyForm) (string, *rejection) {
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", invalidKey("it is sent more than once")
	}
	key := strings.Trim(values[0], whiteSpace)
	if quoted, is := strings.CutPrefix(key, `"`); is && form == StringOrVerbatim {
		unquoted, ok := unquote(quoted)
		if !ok {
			return "", invalidKey("it is not a well-formed quoted string")
		}
		key = unquoted
	}
	if strings.Trim(key, whiteSpace) == "" {
		return "", invalidKey("it is blank")
	}
	if len(key) > maxKey {
		return "", invalidKey(fmt.Sprintf("it has %d bytes, at most %d are allowed", len(key), maxKey))
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] == 0x7f {
			return "", invalidKey("it contains a control character")
		}
	}
	return key, nil
}

const whiteSpace = " \t\n\f\r"

// unquote returns the content of a String, from the bytes after its opening quote. Nothing may follow the
// closing quote: a server that ignores a parameter and one that does not would disagree about the operation.
// Source: RFC 8941, section 4.2.5.
func unquote(rest string) (string, bool) {
	var key strings.Builder
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '"':
			return key.String(), i == len(rest)-1
		case c == '\\':
			i++
			if i == len(rest) || rest[i] != '"' && rest[i] != '\\' {
				return "", false
			}
			key.WriteByte(rest[i])
		case c < ' ' || c > '~':
			return "", false
		default:
			key.WriteByte(c)
		}
	}
	return "", false
}

// fingerprinted is a header that counts: its canonical name in requests, and its label in a mismatch.
type fingerprinted struct {
	name  string
	label string
}

// Method, target, authority and body are parts of every fingerprint.
const (
	maxHeaders  = 64 - 4
	maxLabelLen = 128
)

// defaultHeaders change the meaning of a request.
var defaultHeaders = []string{
	"Authorization", "Content-Encoding", "Content-Type", "If-Match", "If-None-Match", "If-Unmodified-Since",
	"X-API-Key", "X-HTTP-Method-Override",
}

func fingerprintedHeaders(names []string) []fingerprinted {
	lower := make([]string, len(names))
	for i, name := range names {
		lower[i] = strings.ToLower(name)
	}
	// The engine compares parts in order, but the order of this configuration must not matter.
	slices.Sort(lower)
	lower = slices.Compact(lower)
	// The authority is a part of every fingerprint.
	lower = slices.DeleteFunc(lower, func(name string) bool { return name == "host" })
	if len(lower) > maxHeaders {
		panic(fmt.Sprintf("at most %d headers can be fingerprinted, not %d", maxHeaders, len(lower)))
	}
	headers := make([]fingerprinted, len(lower))
	for i, name := range lower {
		label := "header " + name
		headers[i] = fingerprinted{http.CanonicalHeaderKey(name), label[:min(len(label), maxLabelLen)]}
	}
	return headers
}

// fingerprint has the parts "method", "target" (path and query, byte for byte), "authority" (host and port,
// normalized) if there is one, "header NAME" for each counted header of the request, sorted by name, its
// values without the blanks around them, joined by a NUL byte, and "body".
func fingerprint(r *http.Request, headers []fingerprinted, body []byte) oncekey.Fingerprint {
	made := oncekey.Fingerprint{}.Part("method", r.Method).Part("target", target(r))
	if authority := authority(r); authority != "" {
		made = made.Part("authority", authority)
	}
	for _, header := range headers {
		switch values := r.Header[header.name]; len(values) {
		case 0:
		case 1:
			made = made.Part(header.label, strings.Trim(values[0], blanks))
		default:
			trimmed := make([]string, len(values))
			for i, value := range values {
				trimmed[i] = strings.Trim(value, blanks)
			}
			made = made.Part(header.label, strings.Join(trimmed, "\x00"))
		}
	}
	return made.PartBytes("body", body)
}

// blanks around a value do not count: RFC 9110, section 5.5.
const blanks = " \t"

// authority returns the authority of an absolute target or :authority, else Host. The server has put either
// into r.Host.
func authority(r *http.Request) string {
	host := normalized(r.Host)
	if host == "" {
		host = normalized(r.URL.Host)
	}
	if host != "" && r.URL.User != nil {
		return r.URL.User.String() + "@" + host // of an absolute target
	}
	return host
}

// normalized returns an authority with its host in lower case and without a default port. The scheme is often
// unknown, so both 80 and 443 count as default ports.
func normalized(authority string) string {
	authority = strings.Trim(authority, blanks)
	at := strings.LastIndexByte(authority, '@') + 1
	user, host := authority[:at], authority[at:]
	if colon := strings.LastIndexByte(host, ':'); colon >= 0 {
		// A colon inside the brackets of an IPv6 address has the closing bracket after it, so it is no port.
		if port := host[colon+1:]; port == "" || port == "80" || port == "443" {
			host = host[:colon]
		}
	}
	return user + asciiLower(host)
}

func asciiLower(text string) string {
	lower := []byte(text)
	for i, c := range lower {
		if 'A' <= c && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	return string(lower)
}

// target returns the path and query of a request as the client sent them. Handlers outside of this one may
// have removed a prefix of the path. When the URL is another one, both count: a handler may have made the
// request from its own, with its RequestURI.
func target(r *http.Request) string {
	if r.RequestURI == "" {
		return originForm(r.URL.RequestURI())
	}
	sent := originForm(r.RequestURI)
	if isRestOf(sent, r.URL) {
		return sent
	}
	return sent + " " + r.URL.String() // no URL contains a space
}

// isRestOf says whether a URL is all that http.StripPrefix leaves of what the client sent: the end of its
// path, with its query.
func isRestOf(sent string, rest *url.URL) bool {
	path, query, _ := strings.Cut(sent, "?")
	path, err := url.PathUnescape(path)
	return err == nil && query == rest.RawQuery && (strings.HasSuffix(path, rest.Path) || rest.Path == "/")
}

// originForm returns path and query of a request target in any form.
func originForm(raw string) string {
	raw, _, _ = strings.Cut(raw, "#")
	if strings.HasPrefix(raw, "/") || raw == "*" {
		return raw
	}
	_, rest, absolute := strings.Cut(raw, "://")
	if !absolute {
		return "" // the authority of a CONNECT
	}
	start := strings.IndexAny(rest, "/?")
	if start < 0 {
		return "/"
	}
	if rest[start] == '?' {
		return "/" + rest[start:]
	}
	return rest[start:]
}
