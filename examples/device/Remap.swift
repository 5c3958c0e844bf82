// Read remap.json on iOS: which class of the original does an output of the pruned model mean?
//
//   let url = Bundle.main.url(forResource: "remap", withExtension: "json")!
//   let head = try Remap.load(Data(contentsOf: url))
//   let scores = try interpreter.output(at: 0).data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
//   let best = try head.best(scores)                      // LiteRT, with the pruned .tflite file
//   print(best.original, best.label ?? "", best.score)

import Foundation

/// The table of one head.
struct Remap: Decodable {
    let newUnits: Int
    let kept: [Int]
    let newToOld: [Original]
    let labels: [String]?

    enum CodingKeys: String, CodingKey {
        case newUnits = "new_units", kept, newToOld = "new_to_old", labels
    }

    /// The units of the original behind one unit: several if they were merged.
    struct Original: Decodable {
        let units: [Int]

        init(from decoder: Decoder) throws {
            let value = try decoder.singleValueContainer()
            units = try (try? value.decode([Int].self)) ?? [value.decode(Int.self)]
        }
    }

    private struct File: Decodable {
        let schema: String
        let heads: [Remap]
    }

    enum Failure: Error {
        case notARemap(schema: String)
        case wrongWidth(expected: Int, found: Int)
    }

    /// The first head in the bytes of remap.json.
    static func load(_ data: Data) throws -> Remap {
        let file = try JSONDecoder().decode(File.self, from: data)
        guard file.schema == "exporter/remap/1", let head = file.heads.first else {
            throw Failure.notARemap(schema: file.schema)
        }
        return head
    }

    /// The kept unit with the highest score.
    func best(_ scores: [Float]) throws -> (original: [Int], label: String?, score: Float) {
        guard scores.count == newUnits else {
            throw Failure.wrongWidth(expected: newUnits, found: scores.count)
        }
        let keptUnits = Set(kept)  // with --mode mask or zero, removed units have a position too
        let index = scores.indices
            .filter { newToOld[$0].units.allSatisfy(keptUnits.contains) }
            .max { scores[$0] < scores[$1] }!
        return (newToOld[index].units, labels?[index], scores[index])
    }
}
