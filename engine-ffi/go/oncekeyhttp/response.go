package oncekeyhttp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Response is a response as the store holds it, which an identical retry gets. The middleware encodes and
// decodes by itself. This type is for tools that look into a store, and for an operator who finds out how an
// orphan ended and completes it with the response for its client.
//
// The bytes are those of the Rust layer. Version 1, integers big-endian:
//
//	u8  version, 1
//	u16 status
//	u32 number of headers, then for each: u16 length of the name, name, u32 length of the value, value
//	u32 length of the body, body
//	u32 number of trailers, then each as a header
type Response struct {
	Status int
	// Header and Trailer in order, names in lower case, repeated names repeated.
	Header, Trailer []Field
	Body            []byte
}

// Field is a header or trailer.
type Field struct {
	Name, Value string
}

const version = 1

// without returns the response as it is stored, without the dropped headers.
func (r *Response) without(dropped []string) *Response {
	if len(dropped) == 0 {
		return r
	}
	stored := *r
	stored.Header = slices.DeleteFunc(slices.Clone(r.Header), func(field Field) bool {
		return slices.Contains(dropped, field.Name)
	})
	return &stored
}

// notStored are headers that describe one connection: RFC 9110, section 7.6.1, and the headers of RFC 2616,
// section 13.5.1, that RFC 9110 does not list any more. date belongs to one answer.
var notStored = []string{
	"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization",
	"te", "transfer-encoding", "upgrade", "date",
}

// NewResponse makes a response without trailers. Headers that are not stored are left out. The others are
// sorted by name, since a map has no order.
func NewResponse(status int, header http.Header, body []byte) *Response {
	return &Response{Status: status, Header: storedFields(status, header), Body: body}
}

func storedFields(status int, header http.Header) []Field {
	leftOut := slices.Clone(notStored)
	for _, value := range header["Connection"] {
		for named := range strings.SplitSeq(value, ",") {
			leftOut = append(leftOut, strings.ToLower(strings.Trim(named, " \t\n\f\r")))
		}
	}
	if bodiless(status) {
		leftOut = append(leftOut, "content-length")
	}
	return slices.DeleteFunc(fields(header), func(field Field) bool {
		return slices.Contains(leftOut, field.Name)
	})
}

// lineBreaks become spaces, as in net/http.
var lineBreaks = strings.NewReplacer("\n", " ", "\r", " ")

// fields lists a header, sorted by name, with its values as net/http sends them. Fields that are not valid in
// HTTP are left out: they could not be decoded.
func fields(header http.Header) []Field {
	var fields []Field
	for name, values := range header {
		if !isToken(name) {
			continue
		}
		for _, value := range values {
			if value = strings.Trim(lineBreaks.Replace(value), blanks); isValue(value) {
				fields = append(fields, Field{strings.ToLower(name), value})
			}
		}
	}
	slices.SortStableFunc(fields, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return fields
}

// bodiless says whether a response of this status has no body, and so no length.
func bodiless(status int) bool {
	return status == http.StatusNoContent || status == http.StatusNotModified
}

// Encode returns the bytes to complete an operation with. It fails when a part is longer than the format can
// express.
func (r *Response) Encode() ([]byte, error) {
	bytes := binary.BigEndian.AppendUint16([]byte{version}, uint16(r.Status))
	bytes, err := appendFields(bytes, r.Header)
	if err != nil {
		return nil, err
	}
	if uint64(len(r.Body)) > math.MaxUint32 {
		return nil, errors.New("oncekeyhttp: the body is longer than 4 GiB")
	}
	bytes = binary.BigEndian.AppendUint32(bytes, uint32(len(r.Body)))
	return appendFields(append(bytes, r.Body...), r.Trailer)
}

func appendFields(bytes []byte, fields []Field) ([]byte, error) {
	bytes = binary.BigEndian.AppendUint32(bytes, uint32(len(fields)))
	for _, field := range fields {
		if len(field.Name) > math.MaxUint16 || uint64(len(field.Value)) > math.MaxUint32 {
			return nil, errors.New("oncekeyhttp: a header is too long")
		}
		bytes = binary.BigEndian.AppendUint16(bytes, uint16(len(field.Name)))
		bytes = append(bytes, field.Name...)
		bytes = binary.BigEndian.AppendUint32(bytes, uint32(len(field.Value)))
		bytes = append(bytes, field.Value...)
	}
	return bytes, nil
}

// ErrNotAResponse is the error of DecodeResponse for bytes that are not a stored response.
var ErrNotAResponse = errors.New("oncekeyhttp: not a stored response")

// DecodeResponse decodes the bytes that the middleware or the Rust layer wrote. The body is not copied.
func DecodeResponse(bytes []byte) (*Response, error) {
	d := decoder{rest: bytes}
	if found := d.number(1); !d.failed && found != version {
		return nil, fmt.Errorf("%w of version %d, but of %d", ErrNotAResponse, version, found)
	}
	response := &Response{Status: int(d.number(2))}
	response.Header = d.fields()
	response.Body = d.take(d.number(4))
	response.Trailer = d.fields()
	switch {
	case d.failed:
		return nil, fmt.Errorf("%w: it is truncated, or has an invalid header", ErrNotAResponse)
	case len(d.rest) > 0:
		return nil, fmt.Errorf("%w: it is followed by other bytes", ErrNotAResponse)
	case response.Status < 100 || response.Status > 999:
		return nil, fmt.Errorf("%w: it has the status %d", ErrNotAResponse, response.Status)
	}
	for i, field := range response.Header {
		if field.Name == "content-length" {
			response.Header[i].Value = strconv.Itoa(len(response.Body))
		}
	}
	return response, nil
}

// decoder takes bytes off the front of rest. After a failure every call fails.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) take(length uint64) []byte {
	if d.failed || length > uint64(len(d.rest)) {
		d.failed = true
		return nil
	}
	taken := d.rest[:length:length]
	d.rest = d.rest[length:]
	return taken
}

func (d *decoder) number(width uint64) uint64 {
	var number uint64
	for _, b := range d.take(width) {
		number = number<<8 | uint64(b)
	}
	return number
}

func (d *decoder) fields() []Field {
	var fields []Field
	// The count is not trusted with memory: the list grows with the fields that really follow.
	for count := d.number(4); count > 0 && !d.failed; count-- {
		name := string(d.take(d.number(2)))
		value := string(d.take(d.number(4)))
		if !d.failed && (!isToken(name) || !isValue(value)) {
			d.failed = true
		}
		fields = append(fields, Field{strings.ToLower(name), value})
	}
	return fields
}

// isToken says whether a name is a token. Source: RFC 9110, section 5.6.2.
func isToken(name string) bool {
	for i := range len(name) {
		c := name[i]
		alphanumeric := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alphanumeric && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return name != ""
}

// isValue says whether a value is valid. Bytes above 127 are allowed. Source: RFC 9110, section 5.5.
func isValue(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// put sets fields in the header of a client. They replace fields that handlers outside of the middleware set,
// except Vary and Set-Cookie, to which they are added.
func put(header http.Header, fields []Field) {
	replaced := map[string]bool{"vary": true, "set-cookie": true}
	for _, field := range fields {
		if !replaced[field.Name] {
			header.Del(field.Name)
			replaced[field.Name] = true
		}
		header.Add(field.Name, field.Value)
	}
}

// send writes the response to a client.
func (r *Response) send(w http.ResponseWriter) {
	header := w.Header()
	put(header, r.Header)
	switch {
	case len(r.Trailer) > 0:
		// A server that sends an exact length sends no trailers.
		header.Del("Content-Length")
		header.Del("Trailer")
		for _, field := range r.Trailer {
			header.Add("Trailer", http.CanonicalHeaderKey(field.Name))
		}
	case !bodiless(r.Status):
		header.Set("Content-Length", strconv.Itoa(len(r.Body)))
	}
	if header["Content-Type"] == nil {
		header["Content-Type"] = nil // present, so that the server does not guess one
	}
	w.WriteHeader(r.Status)
	if !bodiless(r.Status) {
		w.Write(r.Body)
	}
	for _, field := range r.Trailer {
		header.Add(field.Name, field.Value)
	}
}
