package oncekeyhttp

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
)

// maxKey is the longest key, in bytes.
const maxKey = 255

// parseKey returns the key among the values of its header; "" when there is none. A header that is sent
// twice is refused even when both values are the same: whoever sees only one of them would disagree
// about the operation. The reason never shows the key, which may be a secret of its sender.
func parseKey(values []string) (string, *rejection) {
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", invalidKey("it is sent more than once")
	}
	key := strings.Trim(values[0], " \t\n\f\r")
	if key == "" {
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

// fingerprinted is a header that counts: as requests hold it, and what a mismatch calls it.
type fingerprinted struct {
	name  string
	label string
}

// Method, target and body are parts of every fingerprint.
const (
	maxHeaders  = 64 - 3
	maxLabelLen = 128
)

func fingerprintedHeaders(names []string) []fingerprinted {
	lower := make([]string, len(names))
	for i, name := range names {
		lower[i] = strings.ToLower(name)
	}
	// The order of parts counts for the engine, but must not for whoever configures this.
	slices.Sort(lower)
	lower = slices.Compact(lower)
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

// fingerprint has the parts "method", "target" (path and query, byte for byte), "header NAME" for each
// header that counts and is there, by name, its values joined by a NUL byte, and "body".
func fingerprint(r *http.Request, headers []fingerprinted, body []byte) oncekey.Fingerprint {
	made := oncekey.Fingerprint{}.Part("method", r.Method).Part("target", target(r))
	for _, header := range headers {
		values := r.Header[header.name]
		if header.name == "Host" && r.Host != "" {
			values = []string{r.Host} // the server takes it out of the headers
		}
		if len(values) > 0 {
			made = made.Part(header.label, strings.Join(values, "\x00"))
		}
	}
	return made.PartBytes("body", body)
}

// target is the path and query of a request as the client sent them, whatever handlers outside of this
// one made of its URL.
func target(r *http.Request) string {
	raw := r.RequestURI
	if raw == "" {
		raw = r.URL.RequestURI()
	}
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
	return rest[start:]
}
