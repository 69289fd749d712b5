#include "prompt/token_chunks.h"

#include <algorithm>
#include <optional>

#include "prompt/source_text.h"

namespace limner::prompt {
namespace {

using contract::Weighting;

// A1111's default of "prompt word wrap length limit".
constexpr std::size_t kCommaBacktrack = 20;

char folded_byte(char byte) {
  return byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte - 'A' + 'a') : byte;
}

std::string folded(std::string_view text) {
  std::string answer(text);
  std::transform(answer.begin(), answer.end(), answer.begin(), folded_byte);
  return answer;
}

// One place in a chunk: a token, or one of an embedding's vectors.
struct Slot {
  PassageToken token;
  bool continues = false;  // an embedding's second, third, ... vector
};

// The id of a text that is one token ("," in every CLIP vocabulary), or nothing.
std::optional<std::int32_t> single_id(const ClipTokenizer& tokenizer, std::string_view text) {
  const auto tokens = tokenizer.tokenize(text);
  if (!tokens.ok() || tokens->size() != 1) return std::nullopt;
  return tokens->front().id;
}

class Cutter {
 public:
  Cutter(const ClipTokenizer& tokenizer, const ChunkRule& rule)
      : tokenizer_(tokenizer), rule_(rule), room_(tokenizer.max_length() - 2) {
    if (rule.cut == Weighting::kA1111) comma_ = single_id(tokenizer, ",");
    if (rule.cut != Weighting::kCompel) return;
    sentence_ends_.push_back(single_id(tokenizer, "."));
    for (const char* mark : {".", ",", ";", ":"}) {
      phrase_ends_.push_back(single_id(tokenizer, mark));
    }
  }

  std::vector<TokenChunk> cut(const std::vector<PassageToken>& tokens) {
    for (const PassageToken& token : tokens) add(token);
    if (rule_.cut == Weighting::kCompel) {
      while (slots_.size() > room_) close_after(best_end());
    }
    if (!rule_.padded) fill_up();
    if (!slots_.empty() || chunks_.empty()) close_after(slots_.size(), /*last=*/true);
    return std::move(chunks_);
  }

 private:
  void add(const PassageToken& token) {
    if (token.is_break) {
      while (slots_.size() > room_) close_after(best_end());  // compel's are cut late
      close_after(slots_.size());
    } else if (rule_.cut == Weighting::kCompel) {
      append(token);
    } else {
      add_to_full_chunks(token);
    }
  }

  void add_to_full_chunks(const PassageToken& token) {
    if (comma_ && token.vectors == 0 && token.id == *comma_) {
      after_comma_ = slots_.size() + 1;
    } else if (slots_.size() == room_ && after_comma_ != 0 &&
               slots_.size() + 1 - after_comma_ <= kCommaBacktrack) {
      close_after(after_comma_);
    }
    const std::size_t needed = std::max<std::size_t>(token.vectors, 1);
    if (slots_.size() == room_ || (token.vectors > 0 && slots_.size() + needed > room_)) {
      close_after(slots_.size());
    }
    append(token);
  }

  void append(const PassageToken& token) {
    slots_.push_back({token});
    for (std::size_t i = 1; i < token.vectors; ++i) slots_.push_back({token, true});
  }

  // How many of too many slots make the next chunk.
  std::size_t best_end() const {
    const auto last = [&](auto wanted) -> std::size_t {
      for (std::size_t end = room_; end > 0; --end) {
        const Slot& slot = slots_[end - 1];
        if (slot.token.vectors == 0 && wanted(slot.token)) return end;
      }
      return 0;
    };
    const auto one_of = [](const std::vector<std::optional<std::int32_t>>& ids) {
      return [&ids](const PassageToken& token) {
        return std::find(ids.begin(), ids.end(), token.id) != ids.end();
      };
    };
    std::size_t end = last(one_of(sentence_ends_));
    if (end == 0) end = last(one_of(phrase_ends_));
    if (end == 0) end = last([](const PassageToken& token) { return token.ends_word; });
    if (end == 0) end = room_;
    while (end > 1 && slots_[end].continues) --end;
    return end;
  }

  // The last, unpadded chunk gets end tokens up to what was asked for.
  void fill_up() {
    PassageToken filler;
    filler.id = tokenizer_.end_id();
    while (chunks_.size() * room_ + slots_.size() < rule_.least_tokens) add_to_full_chunks(filler);
  }

  void close_after(std::size_t count, bool last = false) {
    TokenChunk chunk;
    const auto put = [&](std::int32_t id, double weight, std::size_t fragment) {
      chunk.ids.push_back(id);
      chunk.weights.push_back(weight);
      chunk.fragments.push_back(fragment);
    };
    put(tokenizer_.begin_id(), 1.0, kNoFragment);
    for (std::size_t i = 0; i < count; ++i) {
      const auto& [token, continues] = slots_[i];
      if (token.vectors > 0 && !continues) {
        chunk.insertions.push_back({chunk.ids.size(), token.embedding});
      }
      put(token.vectors > 0 ? 0 : token.id, token.weight, token.fragment);
    }
    put(tokenizer_.end_id(), 1.0, kNoFragment);
    const std::size_t length = rule_.padded || !last ? tokenizer_.max_length() : chunk.ids.size();
    while (chunk.ids.size() < length) {
      put(rule_.padded ? tokenizer_.pad_id() : tokenizer_.end_id(), 1.0, kNoFragment);
    }
    chunks_.push_back(std::move(chunk));
    slots_.erase(slots_.begin(), slots_.begin() + static_cast<std::ptrdiff_t>(count));
    after_comma_ = 0;
  }

  const ClipTokenizer& tokenizer_;
  const ChunkRule& rule_;
  std::size_t room_;
  std::optional<std::int32_t> comma_;
  std::vector<std::optional<std::int32_t>> sentence_ends_, phrase_ends_;
  std::vector<Slot> slots_;      // of the chunk being filled
  std::size_t after_comma_ = 0;  // how many of them end with its last comma
  std::vector<TokenChunk> chunks_;
};

// What of the passage the tokens from `first` on came from.
std::string cut_text(const Passage& passage, const std::vector<PassageToken>& tokens,
                     std::size_t first) {
  // Combining marks out of order make tokens whose ranges are not in order either.
  std::vector<std::pair<std::size_t, std::size_t>> ranges(passage.size(), {std::string::npos, 0});
  for (std::size_t i = first; i < tokens.size(); ++i) {
    auto& [begin, end] = ranges[tokens[i].fragment];
    begin = std::min(begin, tokens[i].begin);
    end = std::max(end, tokens[i].end);
  }
  std::string text;
  for (std::size_t i = 0; i < passage.size(); ++i) {
    const auto [begin, end] = ranges[i];
    if (begin >= end) continue;
    if (!text.empty()) text += ' ';
    text.append(passage[i].text, begin, end - begin);
  }
  return text;
}

}  // namespace

EmbeddingNames::EmbeddingNames(const std::vector<std::string>& names, VectorsOf vectors_of)
    : vectors_of_(std::move(vectors_of)) {
  for (const std::string& name : names) {
    if (!name.empty()) by_first_[folded_byte(name.front())].push_back(folded_.size());
    folded_.push_back(folded(name));
  }
  for (auto& [first, indices] : by_first_) {
    std::stable_sort(indices.begin(), indices.end(), [&](std::size_t a, std::size_t b) {
      return folded_[a].size() > folded_[b].size();
    });
  }
}

EmbeddingNames::Found EmbeddingNames::find(std::string_view text, std::size_t from) const {
  if (folded_.empty()) return {};
  const auto apart = [&](std::size_t boundary) {
    return boundary == 0 || boundary == text.size() || !is_word_byte(text[boundary - 1]) ||
           !is_word_byte(text[boundary]);
  };
  for (std::size_t at = from; at < text.size(); ++at) {
    const auto candidates = by_first_.find(folded_byte(text[at]));
    if (candidates == by_first_.end() || !apart(at)) continue;
    for (const std::size_t index : candidates->second) {
      const std::string& name = folded_[index];
      const bool equal =
          text.size() - at >= name.size() &&
          std::equal(name.begin(), name.end(), text.begin() + static_cast<std::ptrdiff_t>(at),
                     [](char want, char got) { return want == folded_byte(got); });
      if (equal && apart(at + name.size())) return {at, at + name.size(), index};
    }
  }
  return {};
}

Result<std::vector<PassageToken>> tokenize(const ClipTokenizer& tokenizer, const Passage& passage,
                                           const EmbeddingNames& embeddings) {
  std::vector<PassageToken> tokens;
  for (std::size_t i = 0; i < passage.size(); ++i) {
    const Fragment& fragment = passage[i];
    PassageToken token;
    token.weight = fragment.weight;
    token.fragment = i;
    if (fragment.is_break) {
      token.is_break = true;
      tokens.push_back(token);
      continue;
    }
    const std::string_view text = fragment.text;
    for (std::size_t done = 0; done <= text.size();) {
      const EmbeddingNames::Found found = embeddings.find(text, done);
      const std::size_t plain_end = found.end == 0 ? text.size() : found.begin;
      const auto plain = tokenizer.tokenize(text.substr(done, plain_end - done));
      if (!plain.ok()) return plain.error();
      for (const ClipTokenizer::Token& one : *plain) {
        token.id = one.id;
        token.begin = done + one.begin;
        token.end = done + one.end;
        token.ends_word = one.ends_word;
        tokens.push_back(token);
      }
      if (found.end == 0) break;
      PassageToken inserted = token;
      inserted.begin = found.begin;
      inserted.end = found.end;
      inserted.vectors = embeddings.vectors(found.embedding);
      inserted.embedding = found.embedding;
      tokens.push_back(inserted);
      done = found.end;
    }
  }
  return tokens;
}

std::vector<TokenChunk> cut_into_chunks(const ClipTokenizer& tokenizer,
                                        const std::vector<PassageToken>& tokens,
                                        const ChunkRule& rule) {
  return Cutter(tokenizer, rule).cut(tokens);
}

Truncated truncate(const ClipTokenizer& tokenizer, const Passage& passage,
                   const std::vector<PassageToken>& tokens) {
  std::size_t room = tokenizer.max_length() - 2;
  std::size_t kept = 0;
  for (; kept < tokens.size() && !tokens[kept].is_break; ++kept) {
    const std::size_t needed = std::max<std::size_t>(tokens[kept].vectors, 1);
    if (needed > room) break;
    room -= needed;
  }
  const std::vector<PassageToken> fitting(tokens.begin(),
                                          tokens.begin() + static_cast<std::ptrdiff_t>(kept));
  return {cut_into_chunks(tokenizer, fitting, {}).front(), cut_text(passage, tokens, kept)};
}

}  // namespace limner::prompt
