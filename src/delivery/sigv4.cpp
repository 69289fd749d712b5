#include "delivery/sigv4.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/sha256.h"
#include "delivery/crypto.h"
#include "delivery/percent.h"

namespace limner::delivery::sigv4 {
namespace {

constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";

std::string lower(std::string_view text) {
  std::string low(text);
  for (char& c : low) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return low;
}

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

// No spaces around, and one where there were several.
std::string trimmed(std::string_view value) {
  std::string text;
  for (const char c : value) {
    if (!is_space(c)) {
      text += c;
    } else if (!text.empty() && text.back() != ' ') {
      text += ' ';
    }
  }
  if (text.ends_with(' ')) text.pop_back();
  return text;
}

std::string normalized(std::string_view path) {
  std::vector<std::string_view> kept;
  std::string_view rest = path;
  while (!rest.empty()) {
    const auto slash = std::min(rest.find('/'), rest.size());
    const std::string_view part = rest.substr(0, slash);
    rest.remove_prefix(std::min(slash + 1, rest.size()));
    if (part.empty() || part == ".") continue;
    if (part != "..") {
      kept.push_back(part);
    } else if (!kept.empty()) {
      kept.pop_back();
    }
  }
  std::string clean;
  for (const std::string_view part : kept) clean += '/' + std::string(part);
  const bool folder = path.ends_with('/') && !kept.empty();
  return clean.empty() || folder ? clean + '/' : clean;
}

struct Canonical {
  std::string headers, signed_names;
};

Canonical canonical_headers(const Pairs& headers) {
  std::map<std::string, std::string> sorted;
  for (const auto& [name, value] : headers) {
    const auto [place, added] = sorted.try_emplace(lower(name), trimmed(value));
    if (!added) place->second += ',' + trimmed(value);
  }
  Canonical canonical;
  for (const auto& [name, value] : sorted) {
    canonical.headers += name + ':' + value + '\n';
    canonical.signed_names += (canonical.signed_names.empty() ? "" : ";") + name;
  }
  return canonical;
}

std::string date_of(const Scope& scope) {
  return fmt::format("{:%Y%m%d}", fmt::gmtime(scope.time));
}

std::string time_of(const Scope& scope) {
  return fmt::format("{:%Y%m%dT%H%M%SZ}", fmt::gmtime(scope.time));
}

std::string scope_text(const Scope& scope) {
  return fmt::format("{}/{}/{}/aws4_request", date_of(scope), scope.region, scope.service);
}

std::string signature(const Request& request, const Canonical& canonical, const std::string& query,
                      const Credentials& credentials, const Scope& scope) {
  const std::string path =
      request.normalize_path ? normalized(request.path) : std::string(request.path);
  const std::string whole =
      fmt::format("{}\n{}\n{}\n{}\n{}\n{}", request.method, encoded_path(path), query,
                  canonical.headers, canonical.signed_names, request.payload_sha256);
  const std::string to_sign = fmt::format("{}\n{}\n{}\n{}", kAlgorithm, time_of(scope),
                                          scope_text(scope), sha256_hex(bytes_of(whole)));
  Digest key = hmac_sha256(bytes_of("AWS4" + credentials.secret_access_key), date_of(scope));
  for (const std::string_view part :
       {std::string_view(scope.region), std::string_view(scope.service),
        std::string_view("aws4_request")}) {
    key = hmac_sha256(key, part);
  }
  return to_hex(hmac_sha256(key, to_sign));
}

}  // namespace

std::string encoded_path(std::string_view path) {
  return percent_encode(path, "/");
}

std::string encoded_query(const Pairs& query) {
  Pairs encoded;
  for (const auto& [name, value] : query) {
    encoded.emplace_back(percent_encode(name), percent_encode(value));
  }
  std::sort(encoded.begin(), encoded.end());
  std::string text;
  for (const auto& [name, value] : encoded) {
    text += (text.empty() ? "" : "&") + name + '=' + value;
  }
  return text;
}

Pairs sign(const Request& request, const Credentials& credentials, const Scope& scope) {
  Pairs added = {{"x-amz-date", time_of(scope)}};
  if (request.payload_header) added.emplace_back("x-amz-content-sha256", request.payload_sha256);
  if (!credentials.session_token.empty()) {
    added.emplace_back("x-amz-security-token", credentials.session_token);
  }
  Pairs all = request.headers;
  all.insert(all.end(), added.begin(), added.end());
  const Canonical canonical = canonical_headers(all);
  added.emplace_back(
      "authorization",
      fmt::format("{} Credential={}/{}, SignedHeaders={}, Signature={}", kAlgorithm,
                  credentials.access_key_id, scope_text(scope), canonical.signed_names,
                  signature(request, canonical, encoded_query(request.query), credentials, scope)));
  return added;
}

std::string presign(const Request& request, const Credentials& credentials, const Scope& scope,
                    std::chrono::seconds lifetime) {
  const Canonical canonical = canonical_headers(request.headers);
  Pairs query = request.query;
  query.emplace_back("X-Amz-Algorithm", kAlgorithm);
  query.emplace_back("X-Amz-Credential", credentials.access_key_id + '/' + scope_text(scope));
  query.emplace_back("X-Amz-Date", time_of(scope));
  query.emplace_back("X-Amz-Expires", std::to_string(lifetime.count()));
  query.emplace_back("X-Amz-SignedHeaders", canonical.signed_names);
  if (!credentials.session_token.empty()) {
    query.emplace_back("X-Amz-Security-Token", credentials.session_token);
  }
  const std::string encoded = encoded_query(query);
  return encoded + "&X-Amz-Signature=" + signature(request, canonical, encoded, credentials, scope);
}

}  // namespace limner::delivery::sigv4
