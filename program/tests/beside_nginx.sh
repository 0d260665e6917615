#!/usr/bin/env bash
# usage: program/tests/beside_nginx.sh [SECONDS]   The cost of the proxy: requests without a key through it,
# through nginx as a reverse proxy, and to the upstream alone, in turns, by 1 and 64 connections; then
# requests with a key each. Last the processor time of a request with a key through the proxy, as a ratio to
# that of one in the process of the server (the orders example) and one without a key through the proxy. Needs nginx and wrk (Debian: nginx-light wrk). A quiet machine, please.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-10}
for tool in nginx wrk; do command -v $tool > /dev/null || { echo "LEFT OUT: $tool is not installed (Debian: nginx-light wrk)"; exit 0; }; done
built=${CARGO_TARGET_DIR:-target}/dist
cargo build --profile dist -p oncekey-program -p oncekey-examples --bin oncekey --bin orders
work=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null; wait 2> /dev/null; rm -rf "$work"' EXIT

# The upstream and the reverse proxy are processes of their own, as with any other pair.
nginx_conf() { # NAME WORKERS SERVER
  cat > "$work/$1.conf" <<CONF
daemon off;
pid $work/$1.pid;
error_log $work/$1.log;
worker_processes $2;
events { worker_connections 2048; }
http {
    access_log off;
    client_body_temp_path $work/body; proxy_temp_path $work/proxy; fastcgi_temp_path $work/fastcgi; uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi;
    keepalive_requests 1000000;
    $3
}
CONF
  nginx -p "$work" -c "$work/$1.conf" &
}
nginx_conf upstream 1 'server { listen 127.0.0.1:18401; location / { return 200 "0123456789"; } }'
nginx_conf reverse auto 'upstream behind { server 127.0.0.1:18401; keepalive 128; keepalive_requests 1000000; }
    server { listen 127.0.0.1:18402; location / { proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ""; } }'
cat > "$work/keys.lua" <<'LUA'
local thread = 0
function setup(t) thread = thread + 1; t:set("id", thread) end
function init() n = 0; start = tostring(os.time()) end
function request()
  n = n + 1
  return wrk.format("POST", "/api/v2/orders", { ["Idempotency-Key"] = start .. "-" .. id .. "-" .. n, ["Content-Type"] = "application/json" }, '{"customerId":"c","items":[]}')
end
LUA
cat > "$work/posts.lua" <<'LUA'
function request()
  return wrk.format("POST", "/api/v2/orders", { ["Content-Type"] = "application/json" }, '{"customerId":"c","items":[]}')
end
LUA
"$built"/oncekey proxy --listen 127.0.0.1:18403 --upstream http://127.0.0.1:18401 --store "$work/keys" --access-log off --log-level error &
proxy=$!
"$built"/orders --listen 127.0.0.1:18404 --store "$work/orders" > "$work/orders.log" &
orders=$!
for port in 18401 18402 18403 18404; do
  for _ in $(seq 100); do (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null && break; sleep 0.1; done
done

measure() { # NAME PORT CONNECTIONS [SCRIPT]
  wrk -t1 -c"$3" -d"${seconds}s" --latency ${4:+-s "$4"} "http://127.0.0.1:$2/" |
    awk -v name="$1" -v connections="$3" '/50%/ {p50=$2} /99%/ {p99=$2} /Requests\/sec/ {rate=$2} /Non-2xx/ {bad=$0}
      END {printf "%-28s %3d connections %10.0f /s   p50 %-9s p99 %-9s %s\n", name, connections, rate, p50, p99, bad}'
}
for round in 1 2 3; do
  echo "round $round"
  for connections in 1 64; do
    measure "the upstream alone" 18401 "$connections"
    measure "through nginx" 18402 "$connections"
    measure "through oncekey" 18403 "$connections"
  done
done
echo "with a key each, which nginx passes on and oncekey stores"
for connections in 1 64; do
  measure "through nginx" 18402 "$connections" "$work/keys.lua"
  measure "through oncekey" 18403 "$connections" "$work/keys.lua"
done

# Processor time of a process so far, in clock ticks: fields 14 and 15, behind the name in parentheses.
ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{print $12 + $13}'; }
cost() { # NAME PID PORT CONNECTIONS SCRIPT: prints a line, leaves microseconds a request in $spent
  local before after said
  before=$(ticks "$2")
  said=$(wrk -t1 -c"$4" -d"${seconds}s" -s "$5" "http://127.0.0.1:$3/")
  after=$(ticks "$2")
  spent=$(awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" '/requests in/ {printf "%.1f", ticks / hz / $1 * 1e6}' <<< "$said")
  awk -v name="$1" -v connections="$4" -v spent="$spent" '/Non-2xx/ {bad=$0}
    END {printf "%-44s %3d connections %8.1f us of processor time a request %s\n", name, connections, spent, bad}' <<< "$said"
}
for round in 1 2 3; do
  echo "processor time, round $round"
  for connections in 1 64; do
    cost "with a key, in the process of the server" "$orders" 18404 "$connections" "$work/keys.lua"; inside=$spent
    cost "without a key, through oncekey" "$proxy" 18403 "$connections" "$work/posts.lua"; passed=$spent
    cost "with a key, through oncekey" "$proxy" 18403 "$connections" "$work/keys.lua"
    awk -v connections="$connections" -v spent="$spent" -v inside="$inside" -v passed="$passed" \
      'BEGIN {printf "%-44s %3d connections %8.2f (goal 1.3)\n", "its ratio to the sum of the other two", connections, spent / (inside + passed)}'
  done
done
