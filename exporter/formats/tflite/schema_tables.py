"""The tables, unions and enumerations of the TFLite schema, by tools/tflite_schema.py.

A table is a line: its name and its fields in the order of their slots. A type is a format of
`struct`, `s` (a string), the name of a table, or `<` with the name of a union; brackets make it a
vector. A field that has no name here (`-`) is not used any more. A union or enumeration is the
names of its values from 0 on.
"""

# ruff: noqa: E501

from __future__ import annotations

TABLES = """\
CustomQuantization custom:[B]
BlockwiseQuantization scales:i zeroPoints:i blockSize:i blockShape:[i]
MultiAxisQuantization scales:i zeroPoints:i blockSize:i quantizedDimensions:[i]
QuantizationParameters min:[f] max:[f] scale:[f] zeroPoint:[q] detailsType:B details:<QuantizationDetails quantizedDimension:i
Int32Vector values:[i]
Uint16Vector values:[H]
Uint8Vector values:[B]
DimensionMetadata format:b denseSize:i arraySegmentsType:B arraySegments:<SparseIndexVector arrayIndicesType:B arrayIndices:<SparseIndexVector
SparsityParameters traversalOrder:[i] blockMap:[i] dimMetadata:[DimensionMetadata]
VariantSubType shape:[i] type:b hasRank:?
Tensor shape:[i] type:b buffer:I name:s quantization:QuantizationParameters isVariable:? sparsity:SparsityParameters shapeSignature:[i] hasRank:? variantTensors:[VariantSubType] externalBuffer:I
StablehloGatherOptions offsetDims:[q] collapsedSliceDims:[q] startIndexMap:[q] indexVectorDim:q sliceSizes:[q] indicesAreSorted:?
StablehloTransposeOptions permutation:[q]
StablehloDotGeneralOptions lhsBatchingDimensions:[q] rhsBatchingDimensions:[q] lhsContractingDimensions:[q] rhsContractingDimensions:[q] precisionConfig:[I]
StablehloReduceWindowOptions windowDimensions:[q] windowStrides:[q] baseDilations:[q] windowDilations:[q] padding:[q] bodySubgraphIndex:i
StablehloWhileOptions condSubgraphIndex:i bodySubgraphIndex:i
StablehloSortOptions dimension:q isStable:? comparatorSubgraphIndex:i
StablehloConcatenateOptions dimension:q
StablehloBroadcastInDimOptions broadcastDimensions:[q]
StablehloCompareOptions comparisonDirection:I compareType:I
StablehloDynamicSliceOptions sliceSizes:[q]
StablehloPadOptions edgePaddingLow:[q] edgePaddingHigh:[q] interiorPadding:[q]
StablehloIotaOptions iotaDimension:q
StablehloCustomCallOptions callTargetName:s hasSideEffect:? backendConfig:s apiVersion:i calledComputations:[i] customAttributes:[B]
StablehloReduceOptions dimensions:[q] bodySubgraphIndex:i
StablehloSliceOptions startIndices:[q] limitIndices:[q] strides:[q]
StablehloConvolutionOptions windowStrides:[q] padding:[q] lhsDilation:[q] rhsDilation:[q] windowReversal:[?] inputBatchDimension:q inputFeatureDimension:q inputSpatialDimensions:[q] kernelInputFeatureDimension:q kernelOutputFeatureDimension:q kernelSpatialDimensions:[q] outputBatchDimension:q outputFeatureDimension:q outputSpatialDimensions:[q] featureGroupCount:q batchGroupCount:q precisionConfig:[I]
StablehloScatterOptions indicesAreSorted:? updateWindowDims:[q] insertedWindowDims:[q] scatterDimsToOperandDims:[q] indexVectorDim:q uniqueIndices:? updateComputationSubgraphIndex:i
StablehloCaseOptions branchSubgraphIndices:[i]
StablehloRngBitGeneratorOptions algorithm:b
Conv2DOptions padding:b strideW:i strideH:i fusedActivationFunction:b dilationWFactor:i=1 dilationHFactor:i=1 quantizedBiasType:b
Conv3DOptions padding:b strideD:i strideW:i strideH:i fusedActivationFunction:b dilationDFactor:i=1 dilationWFactor:i=1 dilationHFactor:i=1
Pool2DOptions padding:b strideW:i strideH:i filterWidth:i filterHeight:i fusedActivationFunction:b
DepthwiseConv2DOptions padding:b strideW:i strideH:i depthMultiplier:i fusedActivationFunction:b dilationWFactor:i=1 dilationHFactor:i=1
ConcatEmbeddingsOptions numChannels:i numColumnsPerChannel:[i] embeddingDimPerChannel:[i]
LSHProjectionOptions type:b
SVDFOptions rank:i fusedActivationFunction:b asymmetricQuantizeInputs:?
RNNOptions fusedActivationFunction:b asymmetricQuantizeInputs:?
SequenceRNNOptions timeMajor:? fusedActivationFunction:b asymmetricQuantizeInputs:?
BidirectionalSequenceRNNOptions timeMajor:? fusedActivationFunction:b mergeOutputs:? asymmetricQuantizeInputs:?
FullyConnectedOptions fusedActivationFunction:b weightsFormat:b keepNumDims:? asymmetricQuantizeInputs:? quantizedBiasType:b quantSpec:[B]
SoftmaxOptions beta:f
ConcatenationOptions axis:i fusedActivationFunction:b
AddOptions fusedActivationFunction:b potScaleInt16:?=True
MulOptions fusedActivationFunction:b
L2NormOptions fusedActivationFunction:b
LocalResponseNormalizationOptions radius:i bias:f alpha:f beta:f
LSTMOptions fusedActivationFunction:b cellClip:f projClip:f kernelType:b asymmetricQuantizeInputs:?
UnidirectionalSequenceLSTMOptions fusedActivationFunction:b cellClip:f projClip:f timeMajor:? asymmetricQuantizeInputs:? diagonalRecurrentTensors:?
BidirectionalSequenceLSTMOptions fusedActivationFunction:b cellClip:f projClip:f mergeOutputs:? timeMajor:?=True asymmetricQuantizeInputs:?
ResizeBilinearOptions - - alignCorners:? halfPixelCenters:?
ResizeNearestNeighborOptions alignCorners:? halfPixelCenters:?
CallOptions subgraph:I
ReshapeOptions newShape:[i]
SkipGramOptions ngramSize:i maxSkipSize:i includeAllNgrams:?
SpaceToDepthOptions blockSize:i
DepthToSpaceOptions blockSize:i
SubOptions fusedActivationFunction:b potScaleInt16:?=True
DivOptions fusedActivationFunction:b
EmbeddingLookupSparseOptions combiner:b
GatherOptions axis:i batchDims:i
ReducerOptions keepDims:?
SqueezeOptions squeezeDims:[i]
SplitOptions numSplits:i
SplitVOptions numSplits:i
StridedSliceOptions beginMask:i endMask:i ellipsisMask:i newAxisMask:i shrinkAxisMask:i offset:?
CastOptions inDataType:b outDataType:b
ArgMaxOptions outputType:b
ArgMinOptions outputType:b
TransposeConvOptions padding:b strideW:i strideH:i fusedActivationFunction:b quantizedBiasType:b
SparseToDenseOptions validateIndices:?
ShapeOptions outType:b
FakeQuantOptions min:f max:f numBits:i narrowRange:?
PackOptions valuesCount:i axis:i
OneHotOptions axis:i
UnpackOptions num:i axis:i
LeakyReluOptions alpha:f
MirrorPadOptions mode:b
UniqueOptions idxOutType:b=2
ReverseSequenceOptions seqDim:i batchDim:i
IfOptions thenSubgraphIndex:i elseSubgraphIndex:i
CallOnceOptions initSubgraphIndex:i
WhileOptions condSubgraphIndex:i bodySubgraphIndex:i
BatchMatMulOptions adjX:? adjY:? asymmetricQuantizeInputs:?
CumsumOptions exclusive:? reverse:?
HashtableOptions tableId:i keyDtype:b valueDtype:b
VarHandleOptions container:s sharedName:s
RandomOptions seed:q seed2:q
BucketizeOptions boundaries:[f]
GeluOptions approximate:?
ReduceWindowOptions reduceFunction:i
OperatorCode deprecatedBuiltinCode:b customCode:s version:i=1 builtinCode:i
StableHLOCompositeOptions name:s decompositionSubgraphIndex:i compositeAttributes:[B] compositeAttributesFormat:b version:i
Operator opcodeIndex:I inputs:[i] outputs:[i] builtinOptionsType:B builtinOptions:<BuiltinOptions customOptions:[B] customOptionsFormat:b mutatingVariableInputs:[?] intermediates:[i] largeCustomOptionsOffset:Q largeCustomOptionsSize:Q builtinOptions2Type:B builtinOptions2:<BuiltinOptions2 debugMetadataIndex:i=-1
SubGraph tensors:[Tensor] inputs:[i] outputs:[i] operators:[Operator] name:s debugMetadataIndex:i=-1
Buffer data:[B] offset:Q size:Q
ExternalBufferGroup name:s
ExternalBuffer id:I group:I offset:Q length:Q packing:s
Metadata name:s buffer:I
TensorMap name:s tensorIndex:I
SignatureDef inputs:[TensorMap] outputs:[TensorMap] signatureKey:s - subgraphIndex:I
Model version:I operatorCodes:[OperatorCode] subgraphs:[SubGraph] description:s buffers:[Buffer] metadataBuffer:[i] metadata:[Metadata] signatureDefs:[SignatureDef] externalBufferGroups:[ExternalBufferGroup] externalBuffers:[ExternalBuffer]
"""
EMPTY_TABLES = """
PadOptions PadV2Options SpaceToBatchNDOptions BatchToSpaceNDOptions TopKV2Options TransposeOptions
ExpOptions CosOptions LogSoftmaxOptions DequantizeOptions MaximumMinimumOptions TileOptions
GreaterOptions GreaterEqualOptions LessOptions LessEqualOptions NegOptions SelectOptions
SliceOptions ExpandDimsOptions EqualOptions NotEqualOptions RankOptions PowOptions LogicalOrOptions
AbsOptions HardSwishOptions LogicalAndOptions LogicalNotOptions FloorDivOptions SquareOptions
ZerosLikeOptions FillOptions FloorModOptions RangeOptions SquaredDifferenceOptions ReverseV2Options
AddNOptions GatherNdOptions WhereOptions MatrixDiagOptions QuantizeOptions MatrixSetDiagOptions
NonMaxSuppressionV4Options NonMaxSuppressionV5Options ScatterNdOptions SelectV2Options
DensifyOptions SegmentSumOptions BroadcastToOptions Rfft2dOptions HashtableFindOptions
HashtableImportOptions HashtableSizeOptions ReadVariableOptions AssignVariableOptions
DynamicUpdateSliceOptions UnsortedSegmentProdOptions UnsortedSegmentMaxOptions
UnsortedSegmentSumOptions ATan2Options UnsortedSegmentMinOptions SignOptions BitcastOptions
BitwiseXorOptions RightShiftOptions DilateOptions StablehloShiftLeftOptions
"""
ENUMERATIONS = {
    "BuiltinOperator": """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE
EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D
LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6
RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM
EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND
TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN
EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX
MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV
SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT
REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV
REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU
SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU
REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL
PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS
HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE
READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM
MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX
UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT
STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM
STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE STABLEHLO_BROADCAST_IN_DIM
STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE STABLEHLO_ABS
STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG STABLEHLO_MINIMUM
STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT STABLEHLO_SELECT
STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT
STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA
STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER
STABLEHLO_TRANSPOSE DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE
STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE
""",
    "TensorType": """
FLOAT32 FLOAT16 INT32 UINT8 INT64 STRING BOOL INT16 COMPLEX64 INT8 FLOAT64 COMPLEX128 UINT64
RESOURCE VARIANT UINT32 UINT16 INT4 BFLOAT16 INT2 UINT4 FLOAT8_E4M3FN FLOAT8_E5M2
""",
    "BuiltinOptions": """
NONE Conv2DOptions DepthwiseConv2DOptions ConcatEmbeddingsOptions LSHProjectionOptions Pool2DOptions
SVDFOptions RNNOptions FullyConnectedOptions SoftmaxOptions ConcatenationOptions AddOptions
L2NormOptions LocalResponseNormalizationOptions LSTMOptions ResizeBilinearOptions CallOptions
ReshapeOptions SkipGramOptions SpaceToDepthOptions EmbeddingLookupSparseOptions MulOptions
PadOptions GatherOptions BatchToSpaceNDOptions SpaceToBatchNDOptions TransposeOptions ReducerOptions
SubOptions DivOptions SqueezeOptions SequenceRNNOptions StridedSliceOptions ExpOptions TopKV2Options
SplitOptions LogSoftmaxOptions CastOptions DequantizeOptions MaximumMinimumOptions ArgMaxOptions
LessOptions NegOptions PadV2Options GreaterOptions GreaterEqualOptions LessEqualOptions
SelectOptions SliceOptions TransposeConvOptions SparseToDenseOptions TileOptions ExpandDimsOptions
EqualOptions NotEqualOptions ShapeOptions PowOptions ArgMinOptions FakeQuantOptions PackOptions
LogicalOrOptions OneHotOptions LogicalAndOptions LogicalNotOptions UnpackOptions FloorDivOptions
SquareOptions ZerosLikeOptions FillOptions BidirectionalSequenceLSTMOptions
BidirectionalSequenceRNNOptions UnidirectionalSequenceLSTMOptions FloorModOptions RangeOptions
ResizeNearestNeighborOptions LeakyReluOptions SquaredDifferenceOptions MirrorPadOptions AbsOptions
SplitVOptions UniqueOptions ReverseV2Options AddNOptions GatherNdOptions CosOptions WhereOptions
RankOptions ReverseSequenceOptions MatrixDiagOptions QuantizeOptions MatrixSetDiagOptions
HardSwishOptions IfOptions WhileOptions DepthToSpaceOptions NonMaxSuppressionV4Options
NonMaxSuppressionV5Options ScatterNdOptions SelectV2Options DensifyOptions SegmentSumOptions
BatchMatMulOptions CumsumOptions CallOnceOptions BroadcastToOptions Rfft2dOptions Conv3DOptions
HashtableOptions HashtableFindOptions HashtableImportOptions HashtableSizeOptions VarHandleOptions
ReadVariableOptions AssignVariableOptions RandomOptions BucketizeOptions GeluOptions
DynamicUpdateSliceOptions UnsortedSegmentProdOptions UnsortedSegmentMaxOptions
UnsortedSegmentMinOptions UnsortedSegmentSumOptions ATan2Options SignOptions BitcastOptions
BitwiseXorOptions RightShiftOptions
""",
    "BuiltinOptions2": """
NONE StablehloConcatenateOptions StablehloBroadcastInDimOptions StablehloSliceOptions
StablehloConvolutionOptions StablehloCustomCallOptions StablehloReduceOptions
StablehloScatterOptions StablehloCompareOptions StablehloDynamicSliceOptions StablehloPadOptions
StablehloIotaOptions StablehloDotGeneralOptions StablehloReduceWindowOptions StablehloSortOptions
StablehloWhileOptions StablehloGatherOptions StablehloTransposeOptions DilateOptions
StablehloRngBitGeneratorOptions ReduceWindowOptions StableHLOCompositeOptions
StablehloShiftLeftOptions StablehloCaseOptions
""",
    "QuantizationDetails": """
NONE CustomQuantization BlockwiseQuantization MultiAxisQuantization
""",
    "SparseIndexVector": """
NONE Int32Vector Uint16Vector Uint8Vector
""",
}
