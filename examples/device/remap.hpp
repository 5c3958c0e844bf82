// Read remap.json in C++17: which class of the original does an output of the pruned model mean?
// It uses the header of https://github.com/nlohmann/json.
//
//   std::ifstream file("remap.json");
//   const Remap head = Remap::parse(file);
//   interpreter->Invoke();                               // LiteRT, with the pruned .tflite file
//   const float* scores = interpreter->typed_output_tensor<float>(0);
//   const KeptUnit best = head.best({scores, scores + head.new_units});
//   std::cout << best.label << " " << best.score << "\n";

#pragma once

#include <istream>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

/// A kept unit: its indices in the original model (several if they were merged), label and score.
struct KeptUnit {
  std::vector<int> original;
  std::string label;  // empty if the model has no labels
  float score;
};

/// The table of one head.
struct Remap {
  std::size_t new_units = 0;
  std::set<int> kept;
  std::vector<std::vector<int>> new_to_old;
  std::vector<std::string> labels;

  /// The first head in remap.json.
  static Remap parse(std::istream& file) {
    const nlohmann::json remap = nlohmann::json::parse(file);
    if (remap.at("schema") != "exporter/remap/1") {
      throw std::runtime_error("this is not a remap: its schema is " + remap.at("schema").dump());
    }
    const nlohmann::json& head = remap.at("heads").at(0);
    Remap result;
    result.new_units = head.at("new_units");
    result.kept = head.at("kept").get<std::set<int>>();
    for (const nlohmann::json& units : head.at("new_to_old")) {
      result.new_to_old.push_back(units.is_array() ? units.get<std::vector<int>>()
                                                   : std::vector<int>{units.get<int>()});
    }
    if (!head.at("labels").is_null()) {
      result.labels = head.at("labels").get<std::vector<std::string>>();
    }
    return result;
  }

  /// The kept unit with the highest score.
  KeptUnit best(const std::vector<float>& scores) const {
    if (scores.size() != new_units) {
      throw std::invalid_argument("the remap has " + std::to_string(new_units) +
                                  " units, and the output has " + std::to_string(scores.size()));
    }
    std::size_t best = scores.size();
    for (std::size_t i = 0; i < scores.size(); ++i) {
      // With --mode mask or zero, removed units have a position too.
      bool counts = true;
      for (int unit : new_to_old[i]) counts = counts && kept.count(unit) > 0;
      if (counts && (best == scores.size() || scores[i] > scores[best])) best = i;
    }
    return {new_to_old.at(best), labels.empty() ? "" : labels[best], scores[best]};
  }
};
