#include "delivery/s3_multipart.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "delivery/crypto.h"
#include "delivery/xml.h"

namespace limner::delivery {
namespace {

template <typename Number>
Number number_in(std::string_view xml, std::string_view name, const std::string& key) {
  const std::string text = xml_text(xml, name);
  Number number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
    throw Failure(ErrorCode::kIo,
                  fmt::format("[s3] the list of {}'s parts has a {} that is no number", key, name));
  }
  return number;
}

// XML's own characters in a tag, which a server may put into quotes.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  }
  return out;
}

}  // namespace

Result<std::string> S3Multipart::begin(const std::string& key, std::string_view content_type,
                                       const std::string& sha256) {
  const auto begun = client_.send(
      {.method = "POST",
       .key = key,
       .query = {{"uploads", ""}},
       .headers = {{"content-type", std::string(content_type)}, {"x-amz-meta-sha256", sha256}}});
  if (!begun) return begun.error();
  std::string id = xml_text(begun->text(), "UploadId");
  if (id.empty()) {
    return Error{ErrorCode::kIo, fmt::format("[s3] the server began no upload of {}", key)};
  }
  return id;
}

Result<S3Part> S3Multipart::put(const S3Upload& upload, int number,
                                std::span<const std::uint8_t> bytes) {
  const auto stored =
      client_.send({.method = "PUT",
                    .key = upload.key,
                    .query = {{"partNumber", std::to_string(number)}, {"uploadId", upload.id}},
                    .body = bytes,
                    .payload_sha256 = sha256_hex(bytes)});
  if (!stored) return stored.error();
  return S3Part{number, bytes.size(), std::string(stored->header("etag"))};
}

Result<std::vector<S3Part>> S3Multipart::parts(const S3Upload& upload) {
  try {
    std::vector<S3Part> parts;
    for (std::string after = "0"; !after.empty();) {
      const auto page = client_
                            .send({.method = "GET",
                                   .key = upload.key,
                                   .query = {{"uploadId", upload.id},
                                             {"max-parts", "1000"},
                                             {"part-number-marker", after}}})
                            .value_or_throw();
      const std::size_t before = parts.size();
      for (const std::string_view part : xml_elements(page.text(), "Part")) {
        parts.push_back({number_in<int>(part, "PartNumber", upload.key),
                         number_in<std::uint64_t>(part, "Size", upload.key),
                         xml_text(part, "ETag")});
      }
      const bool more = xml_text(page.text(), "IsTruncated") == "true" && parts.size() > before;
      after = more ? std::to_string(parts.back().number) : "";
    }
    return parts;
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<void> S3Multipart::complete(const S3Upload& upload, const std::vector<S3Part>& parts) {
  std::string body = "<CompleteMultipartUpload>";
  for (const S3Part& part : parts) {
    body += fmt::format("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>", part.number,
                        escaped(part.tag));
  }
  body += "</CompleteMultipartUpload>";
  const auto done = client_.send({.method = "POST",
                                  .key = upload.key,
                                  .query = {{"uploadId", upload.id}},
                                  .headers = {{"content-type", "application/xml"}},
                                  .body = bytes_of(body),
                                  .payload_sha256 = sha256_hex(bytes_of(body))});
  if (!done) return done.error();
  return {};
}

}  // namespace limner::delivery
