# What the scripts share that do what a page says. `$page` is its path.

# The code block of the page behind a marker.
block() {
  local found
  found=$(awk -v marker="<!-- $1 -->" '$0 == marker { getline; inside = 1; next } /^```$/ { inside = 0 } inside' "$page")
  [ -n "$found" ] || { echo "$page has no block '$1'" >&2; return 1; }
  printf '%s\n' "$found"
}
fail() { echo "$*" >&2; exit 1; }
